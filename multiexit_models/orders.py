"""Carries out one ``delen build``: data, network, training, bundle, report."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

import torch

from delen.bundle.manifest import FILE_NAME, Bundle
from delen.errors import InvalidInput
from multiexit_models.backbone import own_network
from multiexit_models.build import Target, build_bundle
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.source import Reading, check_options, find_kind, input_kind, read_data
from multiexit_models.export.folder import check_target
from multiexit_models.heads import image_head, pooled_head
from multiexit_models.network import MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.train.recipe import QUICK_EPOCHS, Recipe
from multiexit_models.train.train import train
from multiexit_models.train.weights import WeightsOrigin, digest, load_weights, save_weights
from multiexit_models.zoo.entry import ZooEntry
from multiexit_models.zoo.images import IMAGENET_MEAN, IMAGENET_STD
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


def carry_out(args: argparse.Namespace, bar: Bar) -> Bundle:
    """Build the bundle that the command's arguments ask for, and its report."""
    check_target(args.output, args.overwrite)
    if not FILE_NAME.fullmatch(name := args.name or args.output.name):
        raise InvalidInput(
            f"the name {name!r} must be letters, digits, '.', '_' and '-'; --name gives another",
            "name",
        )
    if args.save_weights is not None and not args.save_weights.absolute().parent.is_dir():
        raise InvalidInput(f"{args.save_weights.parent} is no folder", "save_weights")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    kind = args.kind or find_kind(args.data)
    check_options(kind, args)
    entry = zoo_entry(args.network or _default_network(kind))
    if entry.kind != input_kind(kind):
        raise InvalidInput(f"{entry.name} is for {entry.kind}; the data are {kind}", "network")
    checkpoint = args.checkpoint or args.output.with_name(f"{args.output.name}.checkpoint")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    bar.stage("reading data")
    data = read_data(args.data, kind, _reading(args, entry), bar.file)
    for name in data.skipped:
        bar.stage(f"left out, unreadable: {name}")
    torch.manual_seed(args.seed)
    network = _network(args, entry, data, bar)
    recipe = _recipe(args, entry)
    if args.weights is None:
        bar.stage("training")
        train(
            network,
            data.training,
            recipe,
            input=data.input,
            device=args.device,
            checkpoint=checkpoint,
            on_step=bar.step,
        )
        origin = WeightsOrigin(asdict(recipe), str(torch.__version__), digest(network))
    else:
        origin = load_weights(network, args.weights)
        _check_split(origin, args.seed)
    if args.save_weights is not None:
        save_weights(network, origin, args.save_weights)
    bundle = build_bundle(
        network,
        data,
        _target(args, entry, data),
        args.output,
        training={
            "network": args.backbone or entry.name,
            "recipe": origin.recipe,
            "trained_with_torch": origin.torch,
            "seed": args.seed,
        },
        floor=args.floor,
        overwrite=args.overwrite,
        progress=bar,
    )
    if args.checkpoint is None and args.weights is None:
        checkpoint.unlink(missing_ok=True)
    return bundle


def _check_split(origin: WeightsOrigin, seed: int) -> None:
    """InvalidInput where another seed would calibrate on what the weights were trained on."""
    trained_with = (origin.recipe or {}).get("seed", seed)
    if trained_with != seed:
        raise InvalidInput(
            f"the weights were trained with --seed {trained_with}, which chose their training "
            f"part; --seed {seed} would calibrate on some of it",
            "seed",
        )


def _default_network(kind: str) -> str:
    return SHIPPED_NETWORKS.get(kind) or DEFAULT_NETWORKS[input_kind(kind)]


def _reading(args: argparse.Namespace, entry: ZooEntry) -> Reading:
    return Reading(
        shape=entry.shape if args.size is None else parse_size(args.size, entry.shape),
        seed=args.seed,
        sample_rate=args.sample_rate or entry.sample_rate,
        text_column=args.text_column or "text",
        label_column=args.label_column or "label",
        split_column=args.split_column,
        group_by=args.group_by,
        unreadable_share=0.01 if args.max_unreadable is None else args.max_unreadable,
        cache=args.cache,
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


def _network(
    args: argparse.Namespace, entry: ZooEntry, data: Dataset, bar: Bar
) -> MultiExitNetwork:
    if args.backbone is None:
        weights = "DEFAULT" if args.pretrained else None
        return entry.make(len(data.classes), data.input.shape, weights)
    return own_network(
        args.backbone,
        data.input,
        len(data.classes),
        at=tuple(args.at.split(",")) if args.at else None,
        exits=args.exits,
        mean=args.mean or IMAGENET_MEAN,
        std=args.std or IMAGENET_STD,
        head=image_head if args.head == "convolutional" else pooled_head,
        probe=data.validation if args.place == "probe" else None,
        on_places=lambda names: bar.stage(f"exits after {', '.join(names)}"),
    )


def _recipe(args: argparse.Namespace, entry: ZooEntry) -> Recipe:
    recipe = entry.recipe if args.backbone is None else Recipe()
    epochs = QUICK_EPOCHS if args.quick else args.epochs or recipe.epochs
    return replace(
        recipe,
        epochs=epochs,
        batch_size=args.batch_size or recipe.batch_size,
        mirror=recipe.mirror and not args.no_mirror,
        frozen_backbone=args.frozen,
        seed=args.seed,
    )


def _target(args: argparse.Namespace, entry: ZooEntry, data: Dataset) -> Target:
    network = args.backbone or entry.name
    return Target(
        name=args.name or args.output.name,
        version=args.model_version,
        description=args.description or f"{network} trained on {data.name}",
        max_batch=args.max_batch,
        runtime=args.runtime,
        precision=args.precision,
    )
