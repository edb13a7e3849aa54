"""What an ONNX image classifier takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from delen.errors import InvalidInput

_CHANNELS = (1, 3)
_IMAGES = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Interface:
    """The one input of images and the one output of a classifier.

    ``shape`` is height, width and channels, whatever the ``layout``; ``batch`` is None where it is
    free. ``dtype`` is a TensorProto's.
    """

    input: str
    dtype: int
    layout: str
    shape: tuple[int, int, int]
    batch: int | None
    output: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of one image in the order of ``layout``."""
        height, width, channels = self.shape
        return (channels, height, width) if self.layout == "NCHW" else self.shape


def read_interface(
    model: onnx.ModelProto, file: Path, size: tuple[int, int] | None, layout: str | None
) -> Interface:
    """The interface of ``model``, which was read from ``file``.

    ``size``, height and width, and ``layout`` say what the file leaves open. Raises InvalidInput
    for a model that is not a classifier of images, or sizes that stay open.
    """
    taken, given = model.graph.input, model.graph.output
    if len(taken) != 1:
        raise InvalidInput(
            f"{file} takes {len(taken)} inputs ({_names(taken)}); delen serves classifiers of one "
            "image: export the model with the others fixed",
            "model",
        )
    if len(given) != 1:
        raise InvalidInput(
            f"{file} gives {len(given)} outputs ({_names(given)}); delen serves classifiers: "
            "export the model with its logits [batch, classes] as the one output",
            "model",
        )
    tensor = taken[0].type.tensor_type
    if tensor.elem_type not in _IMAGES:
        found = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InvalidInput(
            f"{file} takes {taken[0].name!r} as {found}; images are uint8 or float32", "model"
        )
    sizes = [axis.dim_value or None for axis in tensor.shape.dim]
    if len(sizes) != 4:
        raise InvalidInput(
            f"{file} takes {taken[0].name!r} of {len(sizes)} axes; a classifier of images takes "
            "[batch, channels, height, width] or [batch, height, width, channels]",
            "model",
        )
    layout = _layout(sizes, file, layout)
    channels = sizes[1] if layout == "NCHW" else sizes[3]
    height, width = sizes[2:] if layout == "NCHW" else sizes[1:3]
    if channels not in _CHANNELS:
        raise InvalidInput(
            f"{file} takes {taken[0].name!r} {_shown(sizes)}, which as {layout} has "
            f"{channels or 'any number of'} channels; images have 1 or 3",
            "layout",
        )
    height, width = _fixed(sizes, height, width, file, size)
    shape = (height, width, channels)
    batch = sizes[0]
    return Interface(taken[0].name, tensor.elem_type, layout, shape, batch, given[0].name)


def _layout(sizes: Sequence[int | None], file: Path, layout: str | None) -> str:
    if layout is not None:
        return layout
    if (sizes[1] in _CHANNELS) != (sizes[3] in _CHANNELS):
        return "NCHW" if sizes[1] in _CHANNELS else "NHWC"
    raise InvalidInput(
        f"{file} takes images {_shown(sizes)}, which does not say where the channels are; "
        "give --layout NCHW or --layout NHWC",
        "layout",
    )


def _fixed(
    sizes: Sequence[int | None],
    height: int | None,
    width: int | None,
    file: Path,
    size: tuple[int, int] | None,
) -> tuple[int, int]:
    """Height and width, by the file or, where it leaves them open, by ``size``."""
    if size is None:
        if height is None or width is None:
            raise InvalidInput(
                f"{file} takes images {_shown(sizes)}: its height and width are open; --size "
                "HEIGHTxWIDTH sets them",
                "size",
            )
        return height, width
    if (height or size[0], width or size[1]) != size:
        raise InvalidInput(
            f"{file} takes images of {height or 'any height'} x {width or 'any width'}, not "
            f"{size[0]}x{size[1]}; leave --size out, or export the model for that size",
            "size",
        )
    return size


def _names(values: Sequence[onnx.ValueInfoProto]) -> str:
    return ", ".join(value.name for value in values)


def _shown(sizes: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"
