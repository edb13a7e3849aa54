"""A model at one of its input sizes, as the scheduler, profiles and attribution name it."""

from __future__ import annotations

import re
from typing import TypeAlias

Size: TypeAlias = tuple[int, int]
"""The height and width of images."""

_SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


def variant_name(model: str, size: Size | None) -> str:
    """``model`` at ``size``; a model of one size has no other name."""
    return model if size is None else f"{model}@{format_size(size)}"


def model_of(variant: str) -> str:
    """The model of ``variant``: names of models have no @."""
    return variant.partition("@")[0]


def size_of(variant: str) -> Size | None:
    """The size in the name of ``variant``, None if it has none."""
    found = _SIZE.fullmatch(variant.partition("@")[2])
    return None if found is None else (int(found[1]), int(found[2]))


def format_size(size: Size) -> str:
    """HEIGHTxWIDTH."""
    return f"{size[0]}x{size[1]}"
