"""From a bundle's images to what a classifier takes, in numpy and as nodes of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from delen.errors import InvalidInput
from multiexit_models.imports.interface import Interface
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD

BYTE = 1 / 255


@dataclass(frozen=True)
class Preprocessing:
    """``(pixels * scale - mean) / std`` of each channel, in the classifier's dtype and layout.

    A classifier of uint8 takes the pixels as they are.
    """

    interface: Interface
    factor: tuple[float, ...]
    offset: tuple[float, ...]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.number]:
        """uint8 ``[n, height, width, channels]`` as the classifier takes it."""
        values: NDArray[np.number] = images
        if self.factor:
            factor, offset = (np.array(v, np.float32) for v in (self.factor, self.offset))
            values = images.astype(np.float32) * factor - offset
        if self.interface.layout == "NCHW":
            values = values.transpose(0, 3, 1, 2)
        dtype = helper.tensor_dtype_to_np_dtype(self.interface.dtype)
        return np.ascontiguousarray(values, dtype)

    def nodes(self, source: str, target: str) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
        """The nodes from ``source``, the bundle's input, to ``target``, and their constants."""
        steps: list[tuple[str, str | None, dict[str, Any]]] = []
        constants = []
        if self.factor:
            steps.append(("Cast", None, {"to": TensorProto.FLOAT}))
            for op, name, value in (("Mul", "factor", self.factor), ("Sub", "offset", self.offset)):
                constants.append(
                    numpy_helper.from_array(np.array(value, np.float32), f"preprocessing.{name}")
                )
                steps.append((op, f"preprocessing.{name}", {}))
        if self.interface.layout == "NCHW":
            steps.append(("Transpose", None, {"perm": [0, 3, 1, 2]}))
        if self.interface.dtype not in (TensorProto.UINT8, TensorProto.FLOAT):
            steps.append(("Cast", None, {"to": self.interface.dtype}))
        if not steps:
            steps.append(("Identity", None, {}))
        nodes = []
        for index, (op, constant, attributes) in enumerate(steps):
            result = target if index == len(steps) - 1 else f"preprocessing.{index}"
            inputs = [source] if constant is None else [source, constant]
            nodes.append(
                helper.make_node(op, inputs, [result], f"preprocessing.{op}{index}", **attributes)
            )
            source = result
        return nodes, constants


def make_preprocessing(
    interface: Interface,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scale: float | None,
) -> Preprocessing:
    """The preprocessing that these options say.

    By default that of networks for ImageNet, for grey images a scale of 1/255 alone. With
    ``scale`` the mean is 0 and the deviation 1, unless they are given. Raises InvalidInput for
    options that do not fit the classifier.
    """
    channels = interface.shape[2]
    if interface.dtype == TensorProto.UINT8:
        for name, value in (("mean", mean), ("std", std), ("scale", scale)):
            if value is not None:
                raise InvalidInput(
                    f"the model takes uint8 images as they are, so --{name} would do nothing", name
                )
        return Preprocessing(interface, (), ())
    is_imagenet = scale is None and channels == len(IMAGENET_MEAN)
    mean = _for_channels(mean, channels, IMAGENET_MEAN if is_imagenet else (0.0,), "mean")
    std = _for_channels(std, channels, IMAGENET_STD if is_imagenet else (1.0,), "std")
    if min(std) <= 0:
        raise InvalidInput(f"std {list(std)} must be above 0", "std")
    pairs = list(zip(mean, std, strict=True))
    factor = tuple((BYTE if scale is None else scale) / deviation for _, deviation in pairs)
    return Preprocessing(
        interface, factor, tuple(middle / deviation for middle, deviation in pairs)
    )


def _for_channels(
    given: Sequence[float] | None, channels: int, default: Sequence[float], name: str
) -> tuple[float, ...]:
    values = tuple(default if given is None else given)
    if len(values) not in (1, channels):
        raise InvalidInput(
            f"{name} has {len(values)} numbers; give one, or one for each of {channels} channels",
            name,
        )
    return values if len(values) == channels else values * channels
