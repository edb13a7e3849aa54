"""The one list of the networks that delen knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from delen.errors import InvalidInput
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo import audio, msdnet, text, vision, wav2vec
from multiexit_models.zoo.entry import ZooEntry
from multiexit_models.zoo.images import check_classes, image_size, refuse_weights
from multiexit_models.zoo.residual import residual_cifar

__all__ = ["ZOO", "ZooEntry", "zoo_entry"]


def _residual(classes: int, shape: tuple[int, ...], weights: str | None = None) -> MultiExitNetwork:
    refuse_weights("the residual network", weights)
    check_classes("the residual network", classes)
    image_size("the residual network", shape)
    return residual_cifar(classes)


RESIDUAL_CIFAR = ZooEntry(
    name="residual-cifar",
    kind="image",
    description="Residual network for small images, by the recipe of the bundle that delen ships",
    shape=(32, 32, 3),
    exits=5,
    make=_residual,
    recipe=Recipe(epochs=24, batch_size=256, exit_weights=(0.3, 0.4, 0.6, 0.8, 1.5), small_side=24),
)
RESIDUAL_SMALL = replace(
    RESIDUAL_CIFAR,
    name="residual-small",
    description="The same network, by a recipe for a few hundred to a few thousand images",
    recipe=Recipe(epochs=30, batch_size=32, exit_weights=(0.3, 0.4, 0.6, 0.8, 1.5)),
)

ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            RESIDUAL_CIFAR,
            RESIDUAL_SMALL,
            *msdnet.ENTRIES,
            *vision.ENTRIES,
            *audio.ENTRIES,
            *wav2vec.ENTRIES,
            *text.ENTRIES,
        )
    }
)


def zoo_entry(name: str) -> ZooEntry:
    """The network called ``name``. Raises InvalidInput with the known names for any other."""
    entry = ZOO.get(name)
    if entry is None:
        raise InvalidInput(
            f"there is no network {name!r} in the zoo; it has {', '.join(ZOO)}", "network"
        )
    return entry
