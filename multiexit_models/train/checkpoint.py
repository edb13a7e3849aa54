"""A training in a file, from which it goes on as if it had never stopped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Labelled
from multiexit_models.data.trained_on import TrainedOn
from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.optimiser import MatrixMuon
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.state_dict import read_contents
from multiexit_models.train.weights import digest, packed, save_atomically

FORMAT = "delen-training"
SCHEMA = 2
_ABSENT = "absent"
_ADDRESS = re.compile(r"0x[0-9a-f]+")


@dataclass(frozen=True)
class Identity:
    """What a training trains, and on what. A checkpoint only continues the same training.

    ``modules`` is the digest of the network's printed form, ``tensors`` has the type and shape of
    each of its weights, ``start`` is the digest of the weights before the first step, pretrained
    ones and constants of the preprocessing included. ``data`` is the digest of all inputs' hashes
    and labels.
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
    """A training between two steps: ``step`` steps are done.

    ``order`` and ``generator`` are the state of the training's generator before it drew the order
    of this epoch's samples, and now; ``randomness`` is the state of the libraries' own generators.
    """

    step: int
    order: Tensor
    generator: Tensor
    randomness: Mapping[str, Any]


def identify(
    network: MultiExitNetwork, data: Labelled, recipe: Recipe, input: InputSpec
) -> Identity:
    """The identity of this training. Reads all of the data once."""
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
    total.update(f"{data.inputs.dtype} {data.inputs.shape}".encode())
    total.update(data.hashes.tobytes())
    total.update(np.ascontiguousarray(data.labels).tobytes())
    return total.hexdigest()


def save_checkpoint(
    file: Path,
    network: MultiExitNetwork,
    optimiser: MatrixMuon,
    identity: Identity,
    moment: Moment,
    trained_on: TrainedOn | None,
) -> None:
    """Write all that the training needs to go on; an earlier checkpoint stays until then.

    ``read_weights`` reads the network's weights from it too, and what they were ``trained_on``.
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
        "trained_on": packed(trained_on),
    }
    save_atomically(contents, file)


def load_checkpoint(
    file: Path, network: MultiExitNetwork, optimiser: MatrixMuon, identity: Identity
) -> Moment:
    """Fill ``network`` and ``optimiser`` from ``file``; the moment at which they were saved.

    Raises InvalidInput when the file is not a checkpoint, or one of another recipe, network, input
    or data; the message says what differs, and nothing is changed.
    """
    contents = _read(file)
    difference = _difference(Identity(**contents["identity"]), identity)
    if difference is not None:
        raise InvalidInput(
            f"the checkpoint {file} is of another training: {difference}; remove it to start again",
            "checkpoint",
        )
    network.load_state_dict(contents["weights"])
    optimiser.load_state_dict(contents["optimiser"])
    return Moment(**contents["moment"])


def _read(file: Path) -> dict[str, Any]:
    contents = read_contents(file, "checkpoint")
    if contents.get("format") != FORMAT:
        raise InvalidInput(f"{file} is not a checkpoint of a training", "checkpoint")
    if contents["schema"] != SCHEMA:
        raise InvalidInput(
            f"{file} is a checkpoint of schema {contents['schema']}; this delen goes on from "
            f"{SCHEMA} alone. It can use the other's weights, as --weights {file}",
            "checkpoint",
        )
    return contents


def _difference(there: Identity, here: Identity) -> str | None:
    """The first difference, as the end of a sentence; None where all is the same."""
    for part, name in (("recipe", "recipe"), ("tensors", "network"), ("input", "input")):
        before, now = getattr(there, part), getattr(here, part)
        for key in {**now, **before}:
            was, is_now = before.get(key, _ABSENT), now.get(key, _ABSENT)
            if was != is_now:
                return f"its {name}'s {key} is {was}, and here it is {is_now}"
    if there.modules != here.modules:
        return "its network has the same weights in other modules"
    if there.start != here.start:
        return "its network began with other weights"
    if there.samples != here.samples:
        return f"its data had {there.samples} samples, and these have {here.samples}"
    if there.data != here.data:
        return f"its data had as many samples as these ({here.samples}), but other ones"
    return None
