"""Trained weights in a file, with the recipe that made them and what they were trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from delen.core.atomic_file import atomic_file
from delen.errors import InvalidInput
from multiexit_models.data.trained_on import TrainedOn
from multiexit_models.train.state_dict import StateDict, read_contents, unwrapped


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights come from; ``recipe``, ``torch`` and ``trained_on`` are None where the file has
    none of them.

    ``digest`` is the SHA-256 of names, shapes and bytes of all tensors, and so is the same for
    the same weights in whatever file.
    """

    recipe: Mapping[str, Any] | None
    torch: str | None
    digest: str
    trained_on: TrainedOn | None = None


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """What a file of weights holds: of a multi-exit network, or of a torch classifier alone."""

    file: Path
    tensors: StateDict
    recipe: Mapping[str, Any] | None
    torch: str | None
    trained_on: TrainedOn | None

    @property
    def has_exits(self) -> bool:
        """Whether they are of a multi-exit network, early heads included."""
        return all(name.startswith(("segments.", "heads.")) for name in self.tensors)


def digest(network: nn.Module) -> str:
    """SHA-256 (hex) of the network's parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        total.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        total.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def save_atomically(contents: Mapping[str, Any], file: Path) -> None:
    """Write ``contents`` by torch.save; a process killed meanwhile leaves ``file`` as it was.

    Raises OSError where the disk refuses; torch's own error of an unfinished file hides it.
    """
    with atomic_file(file) as unfinished, unfinished.open("wb") as opened:
        try:
            torch.save(dict(contents), opened)
        except RuntimeError as error:
            raise error.__context__ or error from None


def save_weights(network: nn.Module, origin: WeightsOrigin, file: Path) -> None:
    """Write the network's weights and where they come from."""
    contents = {
        "weights": network.state_dict(),
        "recipe": None if origin.recipe is None else dict(origin.recipe),
        "torch": origin.torch,
        "trained_on": packed(origin.trained_on),
    }
    save_atomically(contents, file)


def read_weights(file: Path, field: str = "weights") -> StoredWeights:
    """The weights in a file of ``save_weights``, a checkpoint, or a state dict as others save it.

    Raises InvalidInput for ``field``, naming the file, when it is missing, damaged or holds
    something else.
    """
    contents = read_contents(file, field)
    if "weights" not in contents:
        return StoredWeights(file, unwrapped(contents, file, field), None, None, None)
    return StoredWeights(
        file,
        unwrapped(contents["weights"], file, field),
        contents.get("recipe"),
        contents.get("torch"),
        unpacked(contents.get("trained_on")),
    )


def load_weights(network: nn.Module, stored: StoredWeights) -> WeightsOrigin:
    """Fill the multi-exit ``network``. Raises InvalidInput when they are of another network."""
    try:
        network.load_state_dict(stored.tensors)
    except (RuntimeError, TypeError) as error:
        raise InvalidInput(f"{stored.file} is of another network: {error}", "weights") from error
    return WeightsOrigin(stored.recipe, stored.torch, digest(network), stored.trained_on)


def packed(trained_on: TrainedOn | None) -> dict[str, Any] | None:
    """``trained_on`` as what torch.load reads again with ``weights_only``."""
    if trained_on is None:
        return None
    return {**vars(trained_on), "samples": torch.from_numpy(trained_on.samples.view("int64"))}


def unpacked(contents: Mapping[str, Any] | None) -> TrainedOn | None:
    if contents is None:
        return None
    return TrainedOn(**{**contents, "samples": contents["samples"].numpy().view("uint64")})
