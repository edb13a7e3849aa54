"""Image classifiers of torchvision and timm, by their names there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import nn

from delen.errors import InvalidInput, MissingExtra
from multiexit_models.attach.exits import attach_exits
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, MultiExitNetwork, Normalise
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.state_dict import StateDict, filled_classifier
from multiexit_models.zoo.entry import SMALLEST_SIDE, ZooEntry

FINE_TUNING = Recipe(
    epochs=10, batch_size=32, muon_lr=1e-3, muon_weight_decay=0.05, adam_lr=1e-3, crop_padding=16
)
EXITS = 4
_SIDE = 224
_TRANSFORM_INPUT = ("inception_v3", "googlenet")
"""torchvision's networks that with published weights normalise once more what they are given."""


@dataclass(frozen=True)
class LibraryNetwork:
    """A classifier of ``library`` by its ``name`` there.

    ``side``, ``mean`` and ``std`` are those of the images for which its published weights were
    trained, ImageNet's usual ones where there are none.
    """

    library: Literal["torchvision", "timm"]
    name: str
    side: int = _SIDE
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __str__(self) -> str:
        return f"{self.library}'s {self.name}"

    def make(self, classes: int, weights: str | None = None) -> nn.Module:
        """The torch classifier, with random weights for None, or the published ``weights``; where
        torchvision published them, it then has their number of classes.

        Raises InvalidInput where they are unknown or cannot be loaded.
        """
        if self.library == "torchvision":
            return _make_of_torchvision(self.name, classes, weights)
        import timm

        try:
            network: nn.Module = timm.create_model(
                self.name, pretrained=weights is not None, num_classes=classes
            )
        except Exception as error:  # of the hub's client, of many kinds
            if weights is None:
                raise
            raise InvalidInput(
                f"timm could not load the published weights of {self.name}: {error}. Leave them "
                "out, or give a file of them as --weights",
                "weights",
            ) from error
        return network


def _make_of_torchvision(name: str, classes: int, weights: str | None) -> nn.Module:
    models = _torchvision_models()
    if weights is None:
        as_published = {"transform_input": True} if name in _TRANSFORM_INPUT else {}
        network: nn.Module = models.get_model(
            name, weights=None, num_classes=classes, **as_published
        )
        return network
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        raise InvalidInput(
            f"torchvision has no weights {weights!r} for {name}; it has "
            f"{', '.join(known.__members__)}",
            "weights",
        )
    chosen = known[weights]
    try:
        network = models.get_model(name, weights=chosen)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise InvalidInput(
            f"torchvision could not load the weights {chosen.name} of {name}: {error}. "
            f"Put the file at {chosen.url} into {torch.hub.get_dir()}/checkpoints, or leave the "
            "weights out and train from random ones",
            "weights",
        ) from error
    return network


def _torchvision_models() -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra("torchvision", "train") from error
    return models


def find(name: str) -> tuple[LibraryNetwork, ...]:
    """The classifiers called ``name``, torchvision's first. Raises MissingExtra without
    torchvision; without timm, there are none of timm."""
    return (*_of_torchvision(name), *_of_timm(name))


def _of_torchvision(name: str) -> tuple[LibraryNetwork, ...]:
    models = _torchvision_models()
    if name not in models.list_models(module=models):
        return ()
    published = next(iter(models.get_model_weights(name)), None)
    if published is None:
        return (LibraryNetwork("torchvision", name),)
    images = published.transforms()
    mean, std = tuple(images.mean), tuple(images.std)
    return (LibraryNetwork("torchvision", name, images.crop_size[0], mean, std),)


def _of_timm(name: str) -> tuple[LibraryNetwork, ...]:
    try:
        import timm
    except ImportError:
        return ()
    if not timm.is_model(name):
        return ()
    published: Any = timm.get_pretrained_cfg(name)
    if published is None:
        return (LibraryNetwork("timm", name),)
    side = published.input_size[1]
    return (LibraryNetwork("timm", name, side, tuple(published.mean), tuple(published.std)),)


def load(
    found: Sequence[LibraryNetwork], classes: int, tensors: StateDict, file: Path
) -> tuple[LibraryNetwork, nn.Module, str]:
    """The first of ``found`` that the ``tensors`` of ``file`` fit, filled with them, and what
    became of their last layer.

    Raises InvalidInput naming what does not fit the first where they fit none.
    """
    misfits = []
    for network in found:
        try:
            return network, *filled_classifier(network.make, classes, tensors, file, str(network))
        except InvalidInput as error:
            misfits.append(error)
    raise misfits[0]


def library_entry(name: str) -> ZooEntry | None:
    """An entry for a classifier that is not in the zoo; None where no library has one."""
    found = find(name)
    if not found:
        return None
    network = found[0]
    return ZooEntry(
        name=name,
        kind="image",
        description=f"{network}, exits by cost",
        shape=(network.side, network.side, 3),
        smallest=SMALLEST_SIDE,
        exits=EXITS,
        create=partial(_make, network),
        recipe=FINE_TUNING,
        has_weights=True,
        library_name=name,
    )


def _make(
    network: LibraryNetwork, classes: int, shape: tuple[int, ...], weights: str | None
) -> MultiExitNetwork:
    return attach_exits(
        network.make(classes, weights),
        torch.zeros(1, 3, *shape[:2]),
        classes,
        exits=EXITS,
        preprocess=Normalise(network.mean, network.std),
    )
