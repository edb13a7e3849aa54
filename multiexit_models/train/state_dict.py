"""State dicts as torch, torchvision, timm and trainers save them, and loading them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from delen.core.kind import kind_of
from delen.errors import InvalidInput, MissingExtra

StateDict: TypeAlias = Mapping[str, Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""The keys under which trainers keep a state dict beside other things."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What data-parallel training, torch.compile and trainers put before every name."""
_FILLED_IN = "num_batches_tracked"
"""What torch itself fills in where an older file lacks it."""
_SHOWN = 3


def read_contents(file: Path, field: str) -> dict[str, Any]:
    """The mapping in a file of torch.save, or the tensors in one of safetensors.

    Nothing is unpickled but plain values and tensors. Raises InvalidInput for ``field`` for another
    file, naming what to save instead of a module; MissingExtra without safetensors.
    """
    try:
        if _is_safetensors(file):
            return _read_safetensors(file)
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except MissingExtra:
        raise
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise InvalidInput(_reason(file, field, error), field) from error
    if not isinstance(contents, dict):
        raise InvalidInput(f"{file} holds {kind_of(contents)}, not {field}", field)
    return contents


def _is_safetensors(file: Path) -> bool:
    """By its contents: eight bytes with the length of the JSON that follows."""
    with file.open("rb") as opened:
        head = opened.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size - 8


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra("safetensors", "timm") from error
    return dict(load_file(file))


def _reason(file: Path, field: str, error: Exception) -> str:
    save = "torch.save(module.state_dict(), FILE) where the module is, and give that file"
    if isinstance(error, UnpicklingError) and (found := re.search(r"GLOBAL (\S+)", str(error))):
        return (
            f"{file} holds Python objects ({found[1]}) beside tensors, which are never unpickled, "
            f"for that could run any code: {save}"
        )
    if "TorchScript archive" in str(error):
        return f"{file} is TorchScript, not a state dict: {save}"
    return f"{file} cannot be read as a file of {field}: {error}"


def unwrapped(contents: Mapping[str, Any], file: Path, field: str) -> StateDict:
    """The state dict in ``contents``, which may hold it under a trainer's usual names."""
    while not (contents and all(isinstance(each, Tensor) for each in contents.values())):
        inner = (contents.get(name) for name in _WRAPPERS)
        found = next((each for each in inner if isinstance(each, Mapping)), None)
        if found is None:
            raise InvalidInput(
                f"{file} holds no state dict, alone or under {', '.join(_WRAPPERS)}, but "
                f"{_first(list(map(str, contents))) or 'nothing'}",
                field,
            )
        contents = found
    return contents


def fill(module: nn.Module, tensors: StateDict, file: Path, name: str) -> None:
    """Load ``tensors``, all of them, into ``module``, which messages call ``name``.

    Raises InvalidInput naming what is missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    tensors = _stripped(tensors, wanted)
    if problem := _misfit(wanted, tensors):
        raise InvalidInput(f"{file} is of another network than {name}: {problem}", "weights")
    module.load_state_dict(tensors, strict=False)


def filled_classifier(
    make: Callable[[int], nn.Module], classes: int, tensors: StateDict, file: Path, name: str
) -> tuple[nn.Module, str]:
    """The network that ``make`` makes for ``classes``, filled, and what became of the file's head.

    A head for another number of classes is left out, and one that is missing is let pass; all else
    as ``fill``.
    """
    module = make(classes)
    wanted = module.state_dict()
    tensors = _stripped(tensors, wanted)
    if _misfit(wanted, tensors) is None:
        fill(module, tensors, file, name)
        return module, (
            f"the last layer of {file} is kept: its {classes} outputs are taken for the classes of "
            "the data, in the order of their names"
        )
    head = _head(wanted, make(classes + 1).state_dict())
    body = {key: tensor for key, tensor in wanted.items() if key not in head}
    given = {key: tensor for key, tensor in tensors.items() if key not in head}
    if problem := _misfit(body, given):
        raise InvalidInput(f"{file} is of another network than {name}: {problem}", "weights")
    module.load_state_dict(given, strict=False)
    outputs = [len(tensors[key]) for key in head if key in tensors and tensors[key].ndim]
    has = f"has {outputs[0]} outputs and the data have" if outputs else "is missing, for"
    return module, f"the last layer of {file} {has} {classes} classes: a new one is trained"


def _head(wanted: StateDict, of_more_classes: StateDict) -> set[str]:
    """The tensors whose shape is that of the classes."""
    return {key for key in wanted if wanted[key].shape != of_more_classes[key].shape}


def _stripped(tensors: StateDict, wanted: StateDict) -> StateDict:
    """``tensors`` without the prefixes that most of them have and no ``wanted`` one."""
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            having = sum(key.startswith(prefix) for key in tensors)
            if 2 * having > len(tensors) and not any(key.startswith(prefix) for key in wanted):
                tensors = {key.removeprefix(prefix): each for key, each in tensors.items()}
    return tensors


def _misfit(wanted: StateDict, given: StateDict) -> str | None:
    """What keeps ``given`` from filling ``wanted``, as the end of a sentence."""
    missing = [key for key in wanted if key not in given and not key.endswith(_FILLED_IN)]
    unexpected = [key for key in given if key not in wanted]
    reshaped = [
        f"{key} {list(given[key].shape)}, not {list(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    problems = [
        f"{len(found)} of its tensors are {what} ({_first(found)})"
        for what, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if found
    ]
    return "; ".join(problems) or None


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
