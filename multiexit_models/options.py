"""What the commands that make bundles have in common: values of options, needs, endings."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING

from delen.core.numbers import read_number, read_whole
from delen.errors import InvalidInput, MissingExtra
from multiexit_models.spec import check_sizes

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle

EXTRA = "train"
NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "PIL", "imagehash", "tqdm")
TERMINATED = 143
"""The status after SIGTERM, as shells give it."""
_PACKAGES = {"PIL": "pillow", "imagehash": "ImageHash"}


def at_least_one(text: str) -> int:
    value = read_whole(text)
    if value < 1:
        raise ValueError(text)
    return value


def share(text: str) -> float:
    value = read_number(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def seed(text: str) -> int:
    value = read_whole(text)
    if not 0 <= value < 1 << 63:
        raise ValueError(text)
    return value


def number(text: str) -> float:
    return read_number(text)


def numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(read_number(part) for part in text.split(","))
    if not all(map(isfinite, numbers)):
        raise ValueError(text)
    return numbers


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Sides of square images, or HEIGHTxWIDTH, with commas between."""
    found = []
    for part in text.lower().split(","):
        height, _, width = part.partition("x")
        try:
            found.append((at_least_one(height), at_least_one(width or height)))
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{part!r} must be a side, or HEIGHTxWIDTH, above 0, and commas between several, "
                "such as 16,24,32 or 96x128,144x192"
            ) from None
    try:
        check_sizes(found)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return tuple(found)


def names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


at_least_one.__name__ = "whole number above 0"
share.__name__ = "share from 0 to 1"
seed.__name__ = "whole number of at least 0"
number.__name__ = "number"
numbers.__name__ = "list of numbers"


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that no unfinished file stays."""

    def end(*_: object) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def need_extra() -> None:
    """MissingExtra where a package that making bundles needs is not installed."""
    for module in NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            raise MissingExtra(_PACKAGES.get(missing, missing), EXTRA) from error


def print_bundle(bundle: Bundle, as_json: bool) -> None:
    """Print a table of the exits of ``bundle``, or its figures as JSON."""
    from multiexit_models.report import REPORT, exit_table, size_table

    if not as_json:
        print(f"{bundle.name} {bundle.manifest.version} in {bundle.path}")
        if (bundle.path / REPORT).is_file():
            print(size_table(bundle) if bundle.smaller else exit_table(bundle))
            print(f"more in {bundle.path / REPORT}")
        return
    manifest = bundle.manifest
    sizes = [manifest.files[exit.graph].size for exit in manifest.exits]
    exits = manifest.provenance["exits"]
    figures = {
        "bundle": str(bundle.path),
        "model": manifest.name,
        "version": manifest.version,
        "digest": bundle.digest,
        "criterion": manifest.criterion,
        "held_out": manifest.held_out,
        "exits": [{**exit, "bytes": size} for exit, size in zip(exits, sizes, strict=True)],
    }
    if bundle.smaller:
        figures["sizes"] = manifest.provenance["sizes"]
    print(json.dumps(figures, indent=1))
