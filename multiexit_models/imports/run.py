"""Carries out one ``delen import``: file, cuts, early heads, bundle, report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from delen.bundle.manifest import Bundle
from delen.errors import InvalidInput
from multiexit_models.attach.heads import image_head, pooled_head
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.duplicates import note_groups
from multiexit_models.data.reading import Reading
from multiexit_models.export.bundle import write_chain
from multiexit_models.export.exported import Exported, OnnxStages
from multiexit_models.export.floors import check_samples
from multiexit_models.export.folder import check_target
from multiexit_models.export.network_chain import Chain
from multiexit_models.imports.classifier import Classifier, read_classifier
from multiexit_models.imports.cut import Place, choose_places, cut
from multiexit_models.imports.folder import check_classes, describe, read_images, read_labels
from multiexit_models.imports.heads import head_macs, join_heads, train_heads, with_heads
from multiexit_models.imports.spec import ImportSpec
from multiexit_models.network import MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.report import write_report
from multiexit_models.spec import parse_size
from multiexit_models.train.checkpoint_notes import checkpoint_named
from multiexit_models.train.device import threads
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.weights import digest
from policies.plan.thresholds import highest_floor


def import_model(spec: ImportSpec, bar: Bar) -> Bundle:
    """Make the bundle of ``spec``, and its report.

    Raises InvalidInput for a file, labels, images or an output that cannot be used, BundleError
    where the segments do not compute what the file does. A report that fails is a note in ``bar``.
    """
    with threads(spec.threads):
        return _import(spec, bar)


def _import(spec: ImportSpec, bar: Bar) -> Bundle:
    check_target(spec.output, spec.overwrite)
    labels = read_labels(spec.labels)
    check_classes(spec.calibration, labels)
    classifier = _read(spec, labels, bar)
    if classifier.max_batch is not None:
        bar.note("its graph is made for single images, so the bundle answers them one by one")
    bar.stage("counting its multiply-adds")
    places, whole_macs = choose_places(classifier, spec.exits)
    if places:
        bar.note(f"exits after {', '.join(place.name_in_file for place in places)}")
    segments = cut(classifier, places, f"{spec.bundle_name}-{spec.model_version}")
    bar.stage(f"reading {spec.calibration}")
    data = _read_images(spec, classifier, labels, bar)
    if spec.floor is not None:
        check_samples(data, spec.floor)
    torch.manual_seed(spec.seed)
    make = image_head if spec.head == "convolutional" else pooled_head
    network = with_heads(segments, places, classifier.classes, make, classifier.max_batch)
    recipe = _recipe(spec, data) if places else None
    with checkpoint_named(spec.checkpoint_file, bar, trains=recipe is not None):
        if recipe is not None:
            bar.stage("training early heads on frozen features")
            train_heads(network, data.training, data.input, recipe, spec.checkpoint_file, bar)
        chain = _chain(spec, classifier, network, segments, places, whole_macs)
        bundle = write_chain(
            chain,
            data,
            replace(spec, precision=classifier.precision, max_batch=chain.exported.max_batch),
            spec.description or f"{spec.model.name}, imported from ONNX",
            {
                "network": spec.model.name,
                "imported": _describe(classifier),
                "recipe": None if recipe is None else asdict(recipe),
                "seed": spec.seed,
            },
            bar,
        )
    if recipe is not None:
        spec.checkpoint_file.unlink(missing_ok=True)
    bar.note(f"the bundle is written and verified: {bundle.path}")
    _say_if_it_guesses(bundle, bar)
    for problem in write_report(bundle):
        bar.note(problem)
    return bundle


def _read(spec: ImportSpec, labels: Sequence[str], bar: Bar) -> Classifier:
    size = None
    if spec.size is not None:
        height, width, *_ = parse_size(spec.size, (0, 0, 0))
        size = (height, width)
    classifier = read_classifier(
        spec.model,
        size=size,
        layout=spec.layout,
        mean=spec.mean,
        std=spec.std,
        scale=spec.scale,
        on_stage=bar.stage,
    )
    if len(labels) != classifier.classes:
        raise InvalidInput(
            f"{spec.labels} has {len(labels)} labels, and {spec.model} {classifier.classes} "
            "outputs; write one label an output, in their order",
            "labels",
        )
    return classifier


def _read_images(
    spec: ImportSpec, classifier: Classifier, labels: tuple[str, ...], bar: Bar
) -> Dataset:
    how = Reading(
        shape=classifier.shape,
        seed=spec.seed,
        group_by=spec.group_by,
        max_unreadable=0.01 if spec.max_unreadable is None else spec.max_unreadable,
        on_file=bar.file,
    )
    data = read_images(spec.calibration, labels, how, has_heads=spec.exits > 1)
    for name in data.skipped:
        bar.note(f"left out, unreadable: {name}")
    bar.note(describe(data))
    return note_groups(data, bar)


def _recipe(spec: ImportSpec, data: Dataset) -> Recipe:
    side = min(data.input.shape[:2])
    recipe = Recipe(frozen_backbone=True, mirror=not spec.no_mirror, seed=spec.seed)
    return replace(
        recipe,
        epochs=spec.epochs or recipe.epochs,
        batch_size=min(recipe.batch_size, len(data.training)),
        crop_padding=min(recipe.crop_padding, side - 1),
    )


def _chain(
    spec: ImportSpec,
    classifier: Classifier,
    network: MultiExitNetwork,
    segments: Sequence[onnx.ModelProto],
    places: Sequence[Place],
    whole_macs: int,
) -> Chain:
    """The segments with their heads, and what they cost and must compute."""
    exported = Exported(
        f"{spec.bundle_name}-{spec.model_version}",
        "onnx",
        classifier.precision,
        classifier.max_batch or spec.max_batch,
        tuple(place.shape for place in places),
        OnnxStages(tuple(join_heads(segments, network, places))),
    )
    of_heads = [*head_macs(network, places), 0]
    up_to = [*(place.macs for place in places), whole_macs]
    macs = [cost + heads for cost, heads in zip(up_to, accumulate(of_heads), strict=True)]
    names = [place.name_in_file for place in places]
    reference = classifier.reference

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        *features, last = reference.values(images, [*names, reference.interface.output])
        with torch.no_grad():
            early = [
                head(torch.from_numpy(values)).numpy()
                for head, values in zip(network.heads, features, strict=False)
            ]
        return np.stack([*early, reference.to_logits(last)])

    weights = hashlib.sha256(_file_digest(classifier).encode())
    weights.update(digest(network).encode())
    return Chain(exported, macs, of_heads, logits, weights.hexdigest())


def _file_digest(classifier: Classifier) -> str:
    raw = classifier.reference.model.SerializeToString(deterministic=True)
    return hashlib.sha256(raw).hexdigest()


def _describe(classifier: Classifier) -> dict[str, object]:
    """What the bundle records of the file; what its weights were trained on is not known."""
    reference = classifier.reference
    model, preprocessing = reference.model, reference.preprocessing
    opsets = {used.domain or "ai.onnx": used.version for used in model.opset_import}
    return {
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opsets": opsets,
        "sha256": _file_digest(classifier),
        "layout": reference.interface.layout,
        "factor": list(preprocessing.factor),
        "offset": list(preprocessing.offset),
        "trained_on": "unknown",
    }


def _say_if_it_guesses(bundle: Bundle, bar: Bar) -> None:
    """An accuracy about that of guessing comes from wrong pixels or labels more often than not."""
    table, chance = bundle.calibration, 1 / bundle.manifest.classes
    last = table.exits - 1
    if highest_floor(table, last, 0.95) <= chance:
        bar.note(
            f"the last exit answers {table.accuracy(last):.1%} rightly, which guessing may do as "
            "well: check the order of the labels, and --mean, --std, --scale and --layout"
        )
