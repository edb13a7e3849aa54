"""A training that was stopped, in a file from which it goes on as if it had not been."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Labelled
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.optimiser import MatrixMuon
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.weights import digest, write_whole

FORMAT = "delen-training"
SCHEMA = 1
_CHUNK_BYTES = 1 << 24
_ADDRESS = re.compile(r"0x[0-9a-f]+")


@dataclass(frozen=True)
class Identity:
    """What a training is of. Only a training of the same may go on from a checkpoint.

    ``modules`` is the digest of how the network prints, ``tensors`` has the type and shape of
    each of its weights, ``start`` is the digest of the weights before the first step, pretrained
    ones and constants of the preprocessing included. ``data`` is that of all inputs and labels.
    """

    recipe: Mapping[str, Any]
    modules: str
    tensors: Mapping[str, str]
    start: str
    input: Mapping[str, Any]
    samples: int
    data: str


@dataclass(frozen=True, eq=False)
class Moment:
    """Between two steps: ``step`` are done, from which epoch and place in the epoch follow.

    ``order`` and ``generator`` are the state of the training's generator before it drew the order
    of this epoch's samples, and now; ``randomness`` that of the libraries' own generators.
    """

    step: int
    order: Tensor
    generator: Tensor
    randomness: Mapping[str, Any]


def identify(
    network: MultiExitNetwork, data: Labelled, recipe: Recipe, input: InputSpec
) -> Identity:
    """What this training is of. Reads all of the data once."""
    return Identity(
        recipe=asdict(recipe),
        modules=hashlib.sha256(_ADDRESS.sub("", str(network)).encode()).hexdigest(),
        tensors={
            name: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in network.state_dict().items()
        },
        start=digest(network),
        input=input.to_json(),
        samples=len(data),
        data=_data_digest(data),
    )


def _data_digest(data: Labelled) -> str:
    total = hashlib.sha256()
    for array in (data.inputs, data.labels):
        total.update(f"{array.dtype} {array.shape}".encode())
        for chunk in _chunks(array):
            total.update(np.ascontiguousarray(chunk).tobytes())
    return total.hexdigest()


def _chunks(array: NDArray[Any]) -> list[NDArray[Any]]:
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def save_checkpoint(
    file: Path,
    network: MultiExitNetwork,
    optimiser: MatrixMuon,
    identity: Identity,
    moment: Moment,
) -> None:
    """Write all that the training needs to go on; a checkpoint that was there stays until then.

    ``load_weights`` reads the network's weights from it too.
    """
    contents = {
        "format": FORMAT,
        "schema": SCHEMA,
        "torch": str(torch.__version__),
        "recipe": dict(identity.recipe),
        "identity": asdict(identity),
        "weights": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "moment": vars(moment),
    }
    write_whole(contents, file)


def load_checkpoint(
    file: Path, network: MultiExitNetwork, optimiser: MatrixMuon, identity: Identity
) -> Moment:
    """Fill ``network`` and ``optimiser`` from ``file``; the moment at which they were saved.

    Raises InvalidInput when the file is no checkpoint, or one of another recipe, network, input
    or data; the message says what differs, and nothing is changed.
    """
    contents = _read(file)
    difference = _difference(Identity(**contents["identity"]), identity)
    if difference is not None:
        raise InvalidInput(
            f"the checkpoint {file} is of another training: {difference}; remove it to begin anew",
            "checkpoint",
        )
    network.load_state_dict(contents["weights"])
    optimiser.load_state_dict(contents["optimiser"])
    return Moment(**contents["moment"])


def _read(file: Path) -> dict[str, Any]:
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InvalidInput(f"{file} is no checkpoint: {error}", "checkpoint") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise InvalidInput(f"{file} is no checkpoint of a training", "checkpoint")
    if contents["schema"] != SCHEMA:
        raise InvalidInput(
            f"{file} is a checkpoint of schema {contents['schema']}; this delen reads {SCHEMA}",
            "checkpoint",
        )
    return contents


def _difference(there: Identity, here: Identity) -> str | None:
    """What differs, as the end of a sentence; None where nothing does."""
    recipe = _first_difference(there.recipe, here.recipe)
    if recipe is not None:
        return f"its recipe's {recipe}"
    tensors = _first_difference(there.tensors, here.tensors)
    if tensors is not None:
        return f"its network's {tensors}"
    if there.modules != here.modules:
        return "its network has the same weights in other modules"
    if there.start != here.start:
        return "its network began with other weights"
    input = _first_difference(there.input, here.input)
    if input is not None:
        return f"its input's {input}"
    if there.samples != here.samples:
        return f"its data had {there.samples} samples, and these have {here.samples}"
    if there.data != here.data:
        return f"its data had as many samples as these ({here.samples}), but other ones"
    return None


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    for name in {**here, **there}:
        if name not in here:
            return f"{name} is {there[name]}, and there is none here"
        if name not in there:
            return f"{name} is missing, and here it is {here[name]}"
        if there[name] != here[name]:
            return f"{name} is {there[name]}, and here it is {here[name]}"
    return None
