"""From what a request carries to the model's input: images, recordings, texts, arrays, lists."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache, lru_cache
from itertools import chain
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import decode_image, served_pixels
from delen.bundle.manifest import InputSpec
from delen.bundle.media import IMAGES, RECORDINGS
from delen.bundle.recordings import decode_recording
from delen.bundle.texts import text_to_bytes
from delen.core.typed_reader import shown
from delen.errors import InvalidInput, UnsupportedMediaType

Contents: TypeAlias = bytes | memoryview
"""Of a body. What is a memoryview may change while it is read, so only tensors are read of it."""

NPY = "application/x-npy"
RAW = "application/octet-stream"
TEXT = "text/plain"
BODY_TYPES = (NPY, RAW, *IMAGES, *RECORDINGS, TEXT)
_NPY_MAGIC = b"\x93NUMPY"
_LONGEST_NPY_HEADER = 1024
_NPY_FIELDS = (
    re.compile(rb"""['"]descr['"]\s*:\s*['"]([<>|=]?[A-Za-z][0-9]*)['"]"""),
    re.compile(rb"""['"]fortran_order['"]\s*:\s*(True|False)"""),
    re.compile(rb"""['"]shape['"]\s*:\s*\(([0-9,\s]*)\)"""),
)


def prepare_decoding(spec: InputSpec) -> None:
    """Load the image decoders now: this takes 20 ms, which the first request would pay.

    Without Pillow images are refused when they come; all other inputs are accepted.
    """
    if spec.image is not None:
        with suppress(ModuleNotFoundError):
            from PIL import Image

            Image.preinit()


def decode_text(text: str | bytes, spec: InputSpec) -> NDArray[np.uint8]:
    """The UTF-8 bytes of ``text``, cut or padded to the model's length: uint8 ``[bytes]``.

    Raises InvalidInput for an empty text and what is not Unicode, UnsupportedMediaType where the
    model does not accept texts.
    """
    if spec.text is None:
        raise _not_accepted("texts", spec)
    if not text:
        raise InvalidInput("the text is empty", "input")
    try:
        whole = text.decode("utf-8") if isinstance(text, bytes) else text
        return text_to_bytes(whole, spec.shape[0])
    except ValueError as error:
        raise InvalidInput(f"the text is not UTF-8: {error}", "input") from error


def _not_accepted(what: str, spec: InputSpec) -> UnsupportedMediaType:
    own = {"images": spec.image, "recordings": spec.audio, "texts": spec.text}
    accepted = [name for name, way in own.items() if way is not None] + [".npy arrays", "raw bytes"]
    return UnsupportedMediaType(
        f"this model does not accept {what}; it accepts {', '.join(accepted)}"
    )


def decode_npy(raw: Contents) -> NDArray[Any]:
    """The array of an .npy file, its length checked against its header first. Pickled objects and
    records are refused.

    numpy's own reader evaluates the header as Python, which CPython 3.11 cannot do in several
    threads at once ("AST constructor recursion depth mismatch").
    """
    try:
        header, contents = _split_npy(raw)
        dtype, is_fortran, shape = _parse_npy_header(header)
        size = dtype.itemsize * prod(shape)
        if size != len(contents):
            raise ValueError(
                f"the header says {list(shape)} of {dtype}, which is {size} bytes, but "
                f"{len(contents)} follow it"
            )
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        array: NDArray[Any] = np.ndarray(shape, dtype, contents, order=order)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"the body is not an .npy array: {error}", "input") from error
    return array


def _split_npy(raw: Contents) -> tuple[bytes, memoryview]:
    """The header's text and what follows it. The header is copied once: it may change."""
    head = bytes(raw[: 12 + _LONGEST_NPY_HEADER])
    if len(head) < 12 or not head.startswith(_NPY_MAGIC):
        raise ValueError("it does not begin as one")
    width = 2 if head[6] == 1 else 4
    start = 8 + width
    end = start + int.from_bytes(head[8:start], "little")
    if head[6] not in (1, 2, 3) or end > len(raw):
        raise ValueError("its header is cut off or of an unknown version")
    if end - start > _LONGEST_NPY_HEADER:
        raise ValueError(f"its header has more than {_LONGEST_NPY_HEADER} bytes")
    return head[start:end], memoryview(raw)[end:]


@lru_cache(64)
def _parse_npy_header(header: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    found = [pattern.search(header) for pattern in _NPY_FIELDS]
    if None in found:
        raise ValueError("its header lacks a plain descr, fortran_order or shape")
    descr, order, sizes = (match[1].decode() for match in found if match is not None)
    dtype = np.dtype(descr)
    if dtype.hasobject:
        raise ValueError("it holds Python objects; it must hold numbers")
    return dtype, order == "True", tuple(int(size) for size in sizes.split(",") if size.strip())


@cache
def _little_endian(name: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(name).newbyteorder("<")
    return dtype


def decode_raw(raw: Contents, spec: InputSpec) -> NDArray[Any]:
    """The little-endian, row-major tensor of one sample or of a batch, as ``raw_shape`` has it."""
    shape = raw_shape(len(raw), spec)
    return np.frombuffer(raw, _little_endian(spec.dtype)).reshape(shape)


def raw_shape(size: int, spec: InputSpec) -> tuple[int, ...]:
    """The shape of a raw tensor of ``size`` bytes: one sample, or a batch of whole samples of the
    largest size: no byte says which size samples of a batch have. InvalidInput if it is neither."""
    width = _little_endian(spec.dtype).itemsize
    sizes = {width * prod(shape): shape for shape in spec.shapes}
    if size in sizes:
        return sizes[size]
    largest = width * prod(spec.shape)
    if not size or size % largest:
        remedy = "send another batch as .npy" if spec.sizes else "a batch has whole samples"
        raise InvalidInput(
            f"the body has {size} bytes; one sample of {spec.dtype} {named_shapes(spec)} has "
            f"{' or '.join(map(str, sizes))}, and a raw batch is a multiple of {largest}: {remedy}",
            "input",
        )
    return (size // largest, *spec.shape)


def named_shapes(spec: InputSpec) -> str:
    """The shapes that a sample may have, for a sentence."""
    return " or ".join(str(list(shape)) for shape in spec.shapes)


def decode_json(value: object, spec: InputSpec) -> NDArray[Any]:
    """The input of a JSON document: a nested list of numbers; for a model of texts also a string,
    or a list of strings, which is a batch."""
    if spec.text is not None and isinstance(value, str):
        return decode_text(value, spec)
    if spec.text is not None and isinstance(value, list):
        texts = [text for text in value if isinstance(text, str)]
        if texts and len(texts) == len(value):
            return np.stack([decode_text(text, spec) for text in texts])
    return decode_list(value, spec)


def decode_list(value: object, spec: InputSpec) -> NDArray[Any]:
    """A nested list of numbers in the model's dtype; a number that does not fit it is refused."""
    if not isinstance(value, list):
        raise InvalidInput(f"input must be a nested list, not {shown(value)}", "input")
    dtype = np.dtype(spec.dtype)
    leaves, shape = _flatten(value, len(spec.shape) + 1)
    has_numbers = set(map(type, leaves)) <= {int, float}
    if not leaves:
        raise InvalidInput("input is empty; it must hold a sample or a batch of samples", "input")
    array = np.asarray(leaves) if has_numbers else np.empty(0, object)
    if array.dtype.kind not in "iuf" or (dtype.kind in "iu" and array.dtype.kind == "f"):
        wanted = "whole numbers" if dtype.kind in "iu" else "numbers"
        raise InvalidInput(f"input must hold {wanted} only ({spec.dtype})", "input")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidInput(
                f"input holds numbers outside {limits.min} to {limits.max} ({spec.dtype})", "input"
            )
    elif not np.isfinite(array).all():
        raise InvalidInput("input holds numbers that are not finite", "input")
    return array.astype(dtype).reshape(shape)


def _flatten(value: list[Any], deepest: int) -> tuple[list[Any], list[int]]:
    """What the innermost lists of ``value`` hold, and the length of the lists at each level.
    InvalidInput for lists of one level that differ in length, and beyond ``deepest`` levels."""
    leaves, shape = value, [len(value)]
    while list in (kinds := set(map(type, leaves))):
        lengths = set(map(len, leaves)) if kinds == {list} else set()
        if len(lengths) != 1:
            raise InvalidInput("input is ragged: lists of one level differ in length", "input")
        if len(shape) == deepest:
            raise InvalidInput(f"input has more than {deepest} levels of lists", "input")
        shape += lengths
        leaves = list(chain.from_iterable(leaves))
    return leaves, shape


def decode_body(body: Contents, media_type: str, spec: InputSpec) -> NDArray[Any]:
    """The array that a body of one of the binary media types holds.

    Raises InvalidInput for what does not decode, TooLarge beyond the limits of
    ``delen.bundle.images`` and ``delen.bundle.recordings``, UnsupportedMediaType for what the model
    does not accept, MissingExtra where a decoder is not installed.
    """
    if media_type == NPY:
        return decode_npy(body)
    if media_type == RAW:
        return decode_raw(body, spec)
    body = bytes(body)
    if media_type == TEXT:
        return decode_text(body, spec)
    if media_type in RECORDINGS:
        if spec.audio is None:
            raise _not_accepted("recordings", spec)
        form = RECORDINGS[media_type]
        return decode_recording(body, spec.audio.sample_rate, spec.shape[0], form)
    if spec.image is None:
        raise _not_accepted("images", spec)
    formats, most_pixels = [IMAGES[media_type]], served_pixels(spec.shape)
    return decode_image(body, spec.image, spec.shape, formats, most_pixels, smaller=spec.shapes[1:])


def split_batch(array: NDArray[Any], spec: InputSpec) -> tuple[list[NDArray[Any]], bool]:
    """The samples in ``array`` and whether it was a batch (one more dimension than a sample).

    An array that is neither is returned whole, to be refused as a sample is: an empty shape or
    dtype could claim any number of samples.
    """
    if not spec.accepts(array.shape[1:]) or not array.itemsize:
        return [array], False
    if not len(array):
        raise InvalidInput("the batch is empty", "input")
    return list(array), True
