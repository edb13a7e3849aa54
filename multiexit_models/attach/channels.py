"""Which axis of features holds the channels, known from the functions that make them.

A convolution writes channels to axis 1, a linear layer or a layer norm to the last axis. Every
other function is asked: it runs on a marker, whose values differ along the channels alone, and the
channels are where neighbours differ in what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

_FIRST: frozenset[Any] = frozenset(
    {
        *(torch.conv1d, torch.conv2d, torch.conv3d),
        *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        *(F.batch_norm, F.group_norm, F.instance_norm),
    }
)
_LAST: frozenset[Any] = frozenset(
    {F.linear, F.layer_norm, F.rms_norm, F.embedding, F.multi_head_attention_forward}
)


def channel_axes(module: fx.GraphModule, inputs: Tensor) -> dict[fx.Node, int]:
    """The channels' axis, 1 or more, of each node that is a tensor for which it is known."""
    marking = _Marking()
    interpreter = fx.Interpreter(module, garbage_collect_values=False)
    with marking:
        interpreter.run(inputs)
    return {
        node: marking.axes[value]
        for node, value in interpreter.env.items()
        if isinstance(value, Tensor) and value in marking.axes
    }


def channels_moved(shape: Sequence[int], axis: int | None) -> tuple[int, ...] | None:
    """The order of axes that brings features ``[batch, *shape]`` into the form that heads read.

    Heads read images as ``[channels, height, width]`` and sequences as ``[steps, width]``. None:
    the features are in that form, or their channels' ``axis`` is unknown.
    """
    wanted = {2: 2, 3: 1}.get(len(shape))
    if axis is None or wanted is None or axis == wanted:
        return None
    order = [each for each in range(len(shape) + 1) if each != axis]
    order.insert(wanted, axis)
    return tuple(order)


class _Marking(TorchFunctionMode):
    """Notes the channels' axis of every tensor that a function returns."""

    def __init__(self) -> None:
        super().__init__()
        self.axes: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        known = [
            (tensor, self.axes[tensor])
            for tensor in _tensors((args, kwargs))
            if tensor in self.axes
        ]
        shapes = [(tensor.shape, axis) for tensor, axis in known]
        returned = func(*args, **kwargs)
        results = _tensors(returned)
        if func in _FIRST or func in _LAST:
            self._note_layer(func, args, results)
        elif known and results:
            marked = self._run_marked(func, args, kwargs)
            if len(marked) != len(results):
                marked = [None] * len(results)
            for result, axis in zip(results, marked, strict=True):
                same = [axis for shape, axis in shapes if shape == result.shape]
                self._note(result, axis if axis is not None else next(iter(same), None))
        return returned

    def _note_layer(self, func: Any, args: tuple[Any, ...], results: list[Tensor]) -> None:
        if not results:
            return
        axis = 1 if func in _FIRST else results[0].ndim - 1
        source = args[0] if args else None
        # A layer over another axis than the channels mixes places, as an MLP-Mixer's do.
        if isinstance(source, Tensor) and source.ndim == results[0].ndim:
            axis = self.axes.get(source, axis)
        self._note(results[0], axis)

    def _note(self, tensor: Tensor, axis: int | None) -> None:
        if axis is not None:
            self.axes[tensor] = axis
        else:
            self.axes.pop(tensor, None)

    def _run_marked(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[int | None]:
        marked_args, marked_kwargs = tree_map(self._marker, (args, kwargs))
        try:
            return [_varying(result) for result in _tensors(func(*marked_args, **marked_kwargs))]
        except Exception:  # a function may refuse values that no network gives it
            return []

    def _marker(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        axis = self.axes.get(value)
        if axis is None:
            return torch.ones_like(value) if value.is_floating_point() else value.clone()
        steps = torch.linspace(1, 2, value.shape[axis], dtype=value.dtype, device=value.device)
        column = [1] * value.ndim
        column[axis] = -1
        return steps.reshape(column).expand_as(value).clone()


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _varying(values: Tensor) -> int | None:
    """The one axis along which most neighbours differ; None where there are none or several."""
    axes = [
        axis
        for axis in range(1, values.ndim)
        if values.shape[axis] > 1
        and (values.diff(dim=axis) != 0).float().mean() > 0.5  # a class token does not differ
    ]
    return axes[0] if len(axes) == 1 else None
