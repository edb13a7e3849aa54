"""Carries out one ``delen build``: data, network, training, bundle, report."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import nn

from delen.bundle.manifest import Bundle, InputSpec
from delen.core.variant import format_size
from delen.errors import InvalidInput
from multiexit_models.attach.backbone import make_module, own_network
from multiexit_models.attach.heads import image_head, pooled_head
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.duplicates import note_groups
from multiexit_models.data.reading import Reading
from multiexit_models.data.source import input_kind, read_data
from multiexit_models.data.trained_on import TrainedOn
from multiexit_models.export.bundle import rehearse, write_bundle
from multiexit_models.export.floors import check_samples
from multiexit_models.export.folder import remove_leftovers
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.report import write_report
from multiexit_models.spec import QUICK_EPOCHS, BuildSpec, parse_size
from multiexit_models.spec_check import check_spec
from multiexit_models.train.checkpoint_notes import checkpoint_named, resume_note
from multiexit_models.train.device import threads
from multiexit_models.train.held_out import NOT_KNOWN, held_out, refuse_overlap
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.state_dict import fill
from multiexit_models.train.training import train
from multiexit_models.train.weights import (
    StoredWeights,
    WeightsOrigin,
    digest,
    load_weights,
    read_weights,
    save_weights,
)
from multiexit_models.zoo import library
from multiexit_models.zoo.entry import ZooEntry
from multiexit_models.zoo.registry import ZOO, zoo_entry

DEFAULT_NETWORKS = {"image": "residual-small", "audio": "audio-commands", "text": "text-bytes"}
SHIPPED_NETWORKS = {"cifar10": "residual-cifar", "fsdd": "audio-digits"}
"""The networks of the shipped bundles, by the kind of their data."""


def list_networks() -> str:
    """The zoo, one network a line."""
    width = max(map(len, ZOO))
    return "\n".join(
        f"{name:{width}}  {entry.kind:5}  {entry.exits} exits  {entry.description}"
        for name, entry in ZOO.items()
    )


def build(spec: BuildSpec, bar: Bar) -> Bundle:
    """Make the bundle of ``spec``, and its report.

    Raises InvalidInput for data, a network, weights or an output that cannot be used, BundleError
    when the exported graphs fail their check, FloatingPointError when the training diverges. What
    was trained until then stays in the checkpoint. A report that fails is a note in ``bar``: the
    bundle is there before it.
    """
    with threads(spec.threads):
        try:
            return _build(spec, bar)
        finally:
            remove_leftovers(spec.output)  # also where a second signal interrupts the removal


def _build(spec: BuildSpec, bar: Bar) -> Bundle:
    kind = check_spec(spec)
    entry = _entry(spec, kind)
    stored = None if spec.weights is None else _stored(spec, entry)
    trains = stored is None or not stored.has_exits
    spec.output.parent.mkdir(parents=True, exist_ok=True)
    bar.stage("reading data")
    data = read_data(spec.data, kind, _reading(spec, entry, bar))
    data = replace(data, held_out=held_out(spec, data, stored))
    if spec.sizes is not None:
        data = replace(data, input=_input_of_sizes(spec, data.input))
    for name in data.skipped:
        bar.note(f"left out, unreadable: {name}")
    data = note_groups(data, bar)
    if trains and spec.checkpoint_file.is_file():
        refuse_overlap(read_weights(spec.checkpoint_file, "checkpoint"), data, is_checkpoint=True)
    if data.held_out == "unknown":
        if spec.floor is not None:
            raise InvalidInput(f"no floor can be guaranteed: {NOT_KNOWN}", "floor")
        bar.note(f"warning: {NOT_KNOWN}")
    if spec.floor is not None:
        check_samples(data, spec.floor)
    torch.manual_seed(spec.seed)
    network = _network(spec, entry, stored, data, bar)
    if trains:
        rehearse(network, data, spec, bar)
    with checkpoint_named(spec.checkpoint_file, bar, trains):
        if stored is not None and stored.has_exits:
            origin = load_weights(network, stored)
        else:
            origin = _trained(spec, entry, network, data, bar)
        if spec.save_weights is not None:
            save_weights(network, origin, spec.save_weights)
        made_from = spec.backbone or entry.name
        bundle = write_bundle(
            network,
            data,
            spec,
            spec.description or f"{made_from} trained on {data.name}",
            {
                "network": made_from,
                "recipe": origin.recipe,
                "trained_with_torch": origin.torch,
                "seed": spec.seed,
            },
            bar,
        )
    bar.note(f"the bundle is written and verified: {bundle.path}")
    if spec.checkpoint is None and trains:
        spec.checkpoint_file.unlink(missing_ok=True)
    bar.stage("reporting")
    for problem in write_report(bundle):
        bar.note(problem)
    return bundle


def _input_of_sizes(spec: BuildSpec, input: InputSpec) -> InputSpec:
    size = format_size((input.shape[0], input.shape[1]))
    if size != spec.largest_size:
        raise InvalidInput(
            f"the images are of {size} pixels, which must be the largest of --sizes", "sizes"
        )
    return replace(input, sizes=spec.smaller_sizes)


def _entry(spec: BuildSpec, kind: str) -> ZooEntry:
    default = SHIPPED_NETWORKS.get(kind) or DEFAULT_NETWORKS[input_kind(kind)]
    entry = zoo_entry(spec.network or default)
    if entry.kind != input_kind(kind):
        raise InvalidInput(f"{entry.name} is for {entry.kind}; the data are {kind}", "network")
    if spec.backbone is None and entry.library_name is None:
        _check_zoo_network(spec, entry)
    return entry


def _check_zoo_network(spec: BuildSpec, entry: ZooEntry) -> None:
    """InvalidInput for an option that a network of this repository has no use for."""
    others = "--backbone and networks of torchvision and timm"
    if spec.at or spec.exits:
        raise InvalidInput(
            f"--at and --exits are for {others}; those of {entry.name} are set", "at"
        )
    if spec.head is not None:
        raise InvalidInput(f"--head is for {others}; {entry.name} has its own", "head")
    if spec.mean or spec.std:
        raise InvalidInput(f"--mean and --std are for {others}; {entry.name} has its own", "mean")


def _stored(spec: BuildSpec, entry: ZooEntry) -> StoredWeights:
    """The weights in the file of --weights, if options and network go with them."""
    assert spec.weights is not None
    stored = read_weights(spec.weights)
    if stored.has_exits:
        if spec.training_options:
            raise InvalidInput(
                f"{spec.weights} has the weights of all exits, with which nothing is trained, so "
                "the training's options do nothing",
                "weights",
            )
    elif spec.backbone is None and entry.library_name is None:
        raise InvalidInput(
            f"{spec.weights} is of another network than {entry.name}, which has weights of "
            "--save-weights alone: name its network by --network or --backbone",
            "weights",
        )
    return stored


def _reading(spec: BuildSpec, entry: ZooEntry, bar: Bar) -> Reading:
    size = spec.largest_size
    return Reading(
        shape=entry.shape if size is None else parse_size(size, entry.shape),
        seed=spec.seed,
        sample_rate=spec.sample_rate or entry.sample_rate,
        text_column=spec.text_column or "text",
        label_column=spec.label_column or "label",
        split_column=spec.split_column,
        group_by=spec.group_by,
        max_unreadable=0.01 if spec.max_unreadable is None else spec.max_unreadable,
        cache=spec.cache,
        on_file=bar.file,
    )


def _network(
    spec: BuildSpec, entry: ZooEntry, stored: StoredWeights | None, data: Dataset, bar: Bar
) -> MultiExitNetwork:
    start = None if stored is None or stored.has_exits else stored
    ordered = spec.at or spec.exits or spec.head or spec.mean or spec.std
    if spec.backbone is None and start is None and not ordered:
        weights = "DEFAULT" if spec.pretrained else None
        return entry.make(len(data.classes), data.input.shape, weights)
    bar.stage("cutting the backbone" if spec.place != "probe" else "probing the backbone")
    if spec.backbone is None:
        module, mean, std = _library_module(spec, entry, start, len(data.classes), bar)
        at = spec.at or (None if spec.exits else entry.at)
        exits = spec.exits or (None if at else entry.exits)
    else:
        module, mean, std = make_module(spec.backbone), IMAGENET_MEAN, IMAGENET_STD
        at, exits = spec.at, spec.exits
        if start is not None:
            fill(module, start.tensors, start.file, spec.backbone)
    return own_network(
        module,
        data.input,
        len(data.classes),
        at=at,
        exits=exits,
        mean=spec.mean or mean,
        std=spec.std or std,
        head=image_head if spec.head == "convolutional" else pooled_head,
        probe=data.validation if spec.place == "probe" else None,
        on_part=bar.part,
        on_places=lambda names: bar.note(f"exits after {', '.join(names)}"),
    )


def _library_module(
    spec: BuildSpec, entry: ZooEntry, start: StoredWeights | None, classes: int, bar: Bar
) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """The classifier of torchvision or timm, and how its images are normalised."""
    assert entry.library_name is not None
    found = library.find(entry.library_name)
    if start is None:
        module = found[0].make(classes, "DEFAULT" if spec.pretrained else None)
        return module, found[0].mean, found[0].std
    network, module, became = library.load(found, classes, start.tensors, start.file)
    bar.note(f"{network}: {became}")
    return module, network.mean, network.std


def _trained(
    spec: BuildSpec, entry: ZooEntry, network: MultiExitNetwork, data: Dataset, bar: Bar
) -> WeightsOrigin:
    """Train ``network``; where its weights come from."""
    is_new = spec.backbone is None and not spec.pretrained and spec.weights is None
    bar.stage("hashing the data")
    trained_on = TrainedOn.training_part(data, spec.seed, spec.group_by, is_new)
    bar.stage("training")
    recipe = _recipe(spec, entry)

    train(
        network,
        data.training,
        recipe,
        input=data.input,
        device=spec.device,
        checkpoint=spec.checkpoint_file,
        trained_on=trained_on,
        on_resume=resume_note(spec.checkpoint_file, recipe, bar),
        on_step=bar.step,
    )
    return WeightsOrigin(asdict(recipe), str(torch.__version__), digest(network), trained_on)


def _recipe(spec: BuildSpec, entry: ZooEntry) -> Recipe:
    recipe = entry.recipe if spec.backbone is None else Recipe()
    return replace(
        recipe,
        epochs=QUICK_EPOCHS if spec.quick else spec.epochs or recipe.epochs,
        batch_size=spec.batch_size or recipe.batch_size,
        mirror=recipe.mirror and not spec.no_mirror,
        small_side=recipe.small_side if spec.sizes is None else None,
        sizes=spec.smaller_sizes,
        frozen_backbone=spec.frozen,
        seed=spec.seed,
    )
