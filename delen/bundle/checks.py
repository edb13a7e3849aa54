"""Whether the values of a manifest are known ones, and fit each other."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from delen.bundle.confidence import CRITERIA
from delen.core.typed_reader import Fail

if TYPE_CHECKING:
    from delen.bundle.manifest import InputSpec, Manifest

RUNTIMES = ("onnx", "torch")
IMAGE_MODES = ("RGB", "L")
RESIZES = ("bilinear", "bicubic", "nearest")
ORIENTATIONS = ("exif", "stored")
PRECISIONS = ("fp32", "fp16", "int8")
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_manifest(manifest: Manifest, fail: Fail) -> None:
    """Raises what ``fail`` makes of the sentence that says what is wrong."""
    _check_input(manifest.input, fail)
    _check_whole(manifest, fail)


def _check_input(input: InputSpec, fail: Fail) -> None:
    if input.dtype not in DTYPES:
        raise fail(f"input.dtype {input.dtype!r} is none of {', '.join(DTYPES)}")
    sample, image = (input.dtype, len(input.shape)), input.image
    if input.audio and sample != ("int16", 1):
        raise fail("input.audio needs int16 [samples]")
    if input.text and (input.text.encoding != "utf-8" or sample != ("uint8", 1)):
        raise fail("input.text needs the encoding utf-8 and uint8 [bytes]")
    if image and (image.mode not in IMAGE_MODES or image.resize not in RESIZES):
        raise fail(
            f"input.image needs a mode of {' or '.join(IMAGE_MODES)} and a resize of "
            f"{', '.join(RESIZES)}, not {image.mode!r} and {image.resize!r}"
        )
    if image and image.orientation not in ORIENTATIONS:
        raise fail(
            f"input.image.orientation {image.orientation!r} is none of {', '.join(ORIENTATIONS)}"
        )
    if image and (sample != ("uint8", 3) or input.shape[2] != len(image.mode)):
        raise fail(f"input.image {image.mode} needs uint8 [height, width, {len(image.mode)}]")
    if sum(way is not None for way in (image, input.audio, input.text)) > 1:
        raise fail("input can have only one of image, audio and text")
    if input.sizes and image is None:
        raise fail("input.sizes needs input.image: its filter scales images down")
    for larger, (height, width) in pairwise((input.shape[:2], *input.sizes)):
        if not (height < larger[0] and width < larger[1]):
            raise fail(
                f"input.sizes {list(map(list, input.sizes))} must each be smaller than the one "
                "before, and the first than input.shape, in height and width"
            )


def _check_whole(manifest: Manifest, fail: Fail) -> None:
    """Whether the parts of the manifest fit each other."""
    if not FILE_NAME.fullmatch(manifest.name):
        raise fail(f"name {manifest.name!r} must be letters, digits, '.', '_' and '-'")
    for name, choices in (
        ("runtime", RUNTIMES),
        ("precision", PRECISIONS),
        ("criterion", CRITERIA),
    ):
        if (chosen := getattr(manifest, name)) not in choices:
            raise fail(f"{name} {chosen!r} is none of {', '.join(choices)}")
    if manifest.labels is not None and len(manifest.labels) != manifest.classes:
        raise fail(f"labels must be {manifest.classes} strings, one a class")
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name):
            raise fail(f"files names {name!r}, which is not a plain file name")
    if len(manifest.smaller) != len(manifest.input.sizes):
        raise fail(
            f"smaller has {len(manifest.smaller)} sizes; input.sizes has "
            f"{len(manifest.input.sizes)}"
        )
    _check_exits(manifest, "", fail)
    for index, scaled in enumerate(manifest.scaled()):
        _check_exits(scaled, f"smaller[{index}].", fail)
        if len(scaled.exits) != len(manifest.exits):
            raise fail(f"smaller[{index}].exits must be {len(manifest.exits)}, as exits are")


def _check_exits(manifest: Manifest, where: str, fail: Fail) -> None:
    for needed in [exit.graph for exit in manifest.exits] + [manifest.calibration]:
        if needed not in manifest.files:
            raise fail(f"{needed!r} is used but not listed under files")
    for index, exit in enumerate(manifest.exits):
        is_last = index == len(manifest.exits) - 1
        name = f"{where}exits[{index}]"
        if (exit.features is None) != is_last:
            raise fail(f"{name}.features must be null for the last exit and only for it")
        if index and exit.macs <= manifest.exits[index - 1].macs:
            raise fail(f"{name} needs more macs than the one before")
