"""Carries out one ``delen build``: data, network, training, bundle, report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from delen.bundle.manifest import Bundle
from delen.errors import InvalidInput
from multiexit_models.attach.backbone import own_network
from multiexit_models.attach.heads import image_head, pooled_head
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.reading import Reading
from multiexit_models.data.source import check_options, find_kind, input_kind, read_data
from multiexit_models.export.bundle import check_samples, rehearse, write_bundle
from multiexit_models.export.folder import check_target, remove_leftovers
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.report import write_report
from multiexit_models.spec import QUICK_EPOCHS, BuildSpec
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.training import train
from multiexit_models.train.weights import WeightsOrigin, digest, load_weights, save_weights
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
    with _threads(spec.threads):
        try:
            return _build(spec, bar)
        finally:
            remove_leftovers(spec.output)  # also where a second signal interrupts the removal


def _build(spec: BuildSpec, bar: Bar) -> Bundle:
    check_target(spec.output, spec.overwrite)
    for option in ("save_weights", "checkpoint"):
        file = getattr(spec, option)
        if file is not None and not file.absolute().parent.is_dir():
            raise InvalidInput(f"{file.parent} is not a folder", option)
    kind = spec.kind or find_kind(spec.data)
    check_options(kind, vars(spec))
    entry = _entry(spec, kind)
    spec.output.parent.mkdir(parents=True, exist_ok=True)
    bar.stage("reading data")
    data = read_data(spec.data, kind, _reading(spec, entry, bar))
    for name in data.skipped:
        bar.note(f"left out, unreadable: {name}")
    torch.manual_seed(spec.seed)
    network = _network(spec, entry, data, bar)
    if spec.floor is not None:
        check_samples(data, spec.floor)
    if spec.weights is None:
        rehearse(network, data, spec, bar)
    with _checkpoint_named(spec, bar):
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
    if spec.checkpoint is None and spec.weights is None:
        spec.checkpoint_file.unlink(missing_ok=True)
    bar.stage("reporting")
    for problem in write_report(bundle):
        bar.note(problem)
    return bundle


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """torch computes with ``count`` threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _checkpoint_named(spec: BuildSpec, bar: Bar) -> Iterator[None]:
    """Where the block fails, say what keeps the training, and how to go on."""
    try:
        yield
    except BaseException as error:
        says_so = isinstance(error, FloatingPointError) or (
            isinstance(error, InvalidInput) and error.field == "checkpoint"
        )
        if spec.weights is None and not says_so and spec.checkpoint_file.exists():
            bar.note(
                f"{spec.checkpoint_file} keeps what was trained; the same command goes on from "
                "there, also with other options for the bundle"
            )
        raise


def _entry(spec: BuildSpec, kind: str) -> ZooEntry:
    default = SHIPPED_NETWORKS.get(kind) or DEFAULT_NETWORKS[input_kind(kind)]
    entry = zoo_entry(spec.network or default)
    if entry.kind != input_kind(kind):
        raise InvalidInput(f"{entry.name} is for {entry.kind}; the data are {kind}", "network")
    return entry


def _reading(spec: BuildSpec, entry: ZooEntry, bar: Bar) -> Reading:
    return Reading(
        shape=entry.shape if spec.size is None else parse_size(spec.size, entry.shape),
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


def parse_size(text: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """``HEIGHTxWIDTH`` for images (``x1``: grey), else one number, as an input's shape."""
    parts = text.lower().split("x")
    is_image = len(default) == 3
    wanted = (2, 3) if is_image else (1,)
    if len(parts) not in wanted or not all(part.isdigit() and int(part) for part in parts):
        right = "HEIGHTxWIDTH, such as 64x64" if is_image else "one whole number above 0"
        raise InvalidInput(f"size {text!r} must be {right}", "size")
    return (*map(int, parts), *default[len(parts) :])


def _network(spec: BuildSpec, entry: ZooEntry, data: Dataset, bar: Bar) -> MultiExitNetwork:
    if spec.backbone is None:
        weights = "DEFAULT" if spec.pretrained else None
        return entry.make(len(data.classes), data.input.shape, weights)
    bar.stage("cutting the backbone" if spec.place != "probe" else "probing the backbone")
    return own_network(
        spec.backbone,
        data.input,
        len(data.classes),
        at=spec.at,
        exits=spec.exits,
        mean=spec.mean or IMAGENET_MEAN,
        std=spec.std or IMAGENET_STD,
        head=image_head if spec.head == "convolutional" else pooled_head,
        probe=data.validation if spec.place == "probe" else None,
        on_part=bar.part,
        on_places=lambda names: bar.note(f"exits after {', '.join(names)}"),
    )


def _trained(
    spec: BuildSpec, entry: ZooEntry, network: MultiExitNetwork, data: Dataset, bar: Bar
) -> WeightsOrigin:
    """Train ``network`` or load its weights; where they come from."""
    if spec.weights is not None:
        origin = load_weights(network, spec.weights)
        _check_split(origin, spec.seed)
        return origin
    bar.stage("training")
    recipe = _recipe(spec, entry)

    def say_resumed(step: int, steps: int) -> None:
        epoch = step * recipe.epochs // steps
        bar.note(
            f"going on from {spec.checkpoint_file}: {step} of {steps} steps are done, "
            f"{epoch} of {recipe.epochs} epochs"
        )

    train(
        network,
        data.training,
        recipe,
        input=data.input,
        device=spec.device,
        checkpoint=spec.checkpoint_file,
        on_sample=bar.sample,
        on_resume=say_resumed,
        on_step=bar.step,
    )
    return WeightsOrigin(asdict(recipe), str(torch.__version__), digest(network))


def _recipe(spec: BuildSpec, entry: ZooEntry) -> Recipe:
    recipe = entry.recipe if spec.backbone is None else Recipe()
    return replace(
        recipe,
        epochs=QUICK_EPOCHS if spec.quick else spec.epochs or recipe.epochs,
        batch_size=spec.batch_size or recipe.batch_size,
        mirror=recipe.mirror and not spec.no_mirror,
        frozen_backbone=spec.frozen,
        seed=spec.seed,
    )


def _check_split(origin: WeightsOrigin, seed: int) -> None:
    """InvalidInput where another seed would calibrate on samples that the weights trained on."""
    trained_with = (origin.recipe or {}).get("seed", seed)
    if trained_with != seed:
        raise InvalidInput(
            f"the weights were trained with --seed {trained_with}, which chose their training "
            f"part; --seed {seed} would calibrate on some of it",
            "seed",
        )
