"""Trained weights in a file, with the recipe that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from delen.core.atomic_file import atomic_file
from delen.errors import InvalidInput


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights come from; ``recipe`` and ``torch`` are None where the file has neither.

    ``digest`` is the SHA-256 of names, shapes and bytes of all tensors, and so is the same for
    the same weights in whatever file.
    """

    recipe: Mapping[str, Any] | None
    torch: str | None
    digest: str


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
    }
    save_atomically(contents, file)


def read_contents(file: Path, field: str) -> dict[str, Any]:
    """The mapping in a file of torch.save. Raises InvalidInput for ``field`` for another file."""
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InvalidInput(f"{file} cannot be read as a file of {field}: {error}", field) from error
    if not isinstance(contents, dict):
        raise InvalidInput(f"{file} holds a {type(contents).__name__}, not {field}", field)
    return contents


def load_weights(network: nn.Module, file: Path) -> WeightsOrigin:
    """Fill ``network`` from a file of ``save_weights``, a checkpoint, or torch's plain state dict.

    Raises InvalidInput naming the file when it is missing, damaged or of another network.
    """
    contents = read_contents(file, "weights")
    saved_here = "weights" in contents
    try:
        network.load_state_dict(contents["weights"] if saved_here else contents)
    except (RuntimeError, TypeError) as error:
        raise InvalidInput(f"{file} is of another network: {error}", "weights") from error
    if not saved_here:
        return WeightsOrigin(None, None, digest(network))
    return WeightsOrigin(contents.get("recipe"), contents.get("torch"), digest(network))
