"""What one exported graph computes, as torch modules: a segment and its head, and the confidence.

The two are exported apart and joined at the end, so that temperature and criterion can come from
the logits of the exported, perhaps quantised, chain.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from delen.bundle.confidence import CRITERIA, ENTROPY, MARGIN
from delen.core.kind import kind_of
from delen.core.variant import Size
from delen.errors import InvalidInput
from multiexit_models.network import MultiExitNetwork, set_memory_format

EXAMPLE_BATCH = 2
EXAMPLE_STORED = 3


class Stage(nn.Module):
    """``(inputs)`` or ``(features, rows)`` to ``(logits[, features])``.

    ``rows`` int64 ``[batch]`` are the places in ``features`` ``[stored, ...]`` of the samples
    that go on, so that they are gathered inside the graph and never leave the device.
    """

    def __init__(self, segment: nn.Module, head: nn.Module, is_last: bool) -> None:
        super().__init__()
        self.segment = segment
        self.head = head
        self.is_last = is_last

    def forward(self, inputs: Tensor, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        chosen = inputs if rows is None else inputs.index_select(0, rows)
        features = self.segment(chosen)
        logits = self.head(features)
        return (logits,) if self.is_last else (logits, features)


class Confidence(nn.Module):
    """float32 logits ``[batch, classes]`` to float32 confidences ``[batch]``.

    Computes ``delen.bundle.confidence.confidences`` of softmax(logits / temperature). For patience
    it is the largest probability: the code that runs the chain counts the streaks. Raises
    InvalidInput for an unknown criterion.
    """

    temperature: Tensor

    def __init__(self, criterion: str, temperature: float) -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise InvalidInput(
                f"the criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}",
                "criterion",
            )
        self.criterion = criterion
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, logits: Tensor) -> Tensor:
        cooled = logits / self.temperature
        if self.criterion == ENTROPY:
            logs = torch.log_softmax(cooled, dim=1)
            values = 1 + (logs.exp() * logs).sum(dim=1) / math.log(logits.shape[1])
        elif self.criterion == MARGIN:
            best = torch.softmax(cooled, dim=1).topk(2, dim=1).values
            values = best[:, 0] - best[:, 1]
        else:
            values = torch.softmax(cooled, dim=1).amax(dim=1)
        return values.clamp(0, 1)


class ConfidentStage(nn.Module):
    """A stage, exported or not, with its confidence between logits and features."""

    def __init__(self, stage: nn.Module, confidence: Confidence) -> None:
        super().__init__()
        self.stage = stage
        self.confidence = confidence

    def forward(self, inputs: Tensor, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        logits, *features = self.stage(inputs) if rows is None else self.stage(inputs, rows)
        return (logits, self.confidence(logits), *features)


class GlobalMean(nn.Module):
    """``AdaptiveAvgPool2d(1)`` that exports as one mean.

    torch's own exports an index computation as well, which only restores strides.
    """

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3), keepdim=True)


@dataclass(frozen=True, eq=False)
class StageExample:
    """A stage and arguments to trace it with; ``features`` is the shape that it passes on, and
    ``smaller`` are those at smaller input sizes. ``free`` are the axes of the first argument that
    differ between sizes, with their least and largest length."""

    stage: Stage
    arguments: tuple[Tensor, ...]
    features: tuple[int, ...] | None
    smaller: tuple[tuple[int, ...], ...] = ()
    free: Mapping[int, tuple[int, int]] = field(default_factory=dict)


def stages(
    network: MultiExitNetwork, sample: Tensor, sizes: Sequence[Size] = ()
) -> Iterator[StageExample]:
    """The stages of a copy of ``network`` in evaluation mode on the CPU, first to last.

    ``sample`` is one input, ``[1, ...]``, at the largest of its sizes; ``sizes`` are the smaller
    heights and widths. Only its shape and dtype matter. Raises InvalidInput naming the segment or
    head whose output does not fit a chain.
    """
    exportable = copy.deepcopy(network).cpu().eval()
    set_memory_format(exportable, torch.contiguous_format)
    _replace_global_pools(exportable)
    last = len(network.segments) - 1
    inputs = torch.zeros((EXAMPLE_STORED, *sample.shape[1:]), dtype=sample.dtype)
    small = [inputs[:, :height, :width] for height, width in sizes]
    arguments: tuple[Tensor, ...] = (inputs[:EXAMPLE_BATCH],)
    classes = None
    pairs = zip(exportable.segments, exportable.heads, strict=True)
    for index, (segment, head) in enumerate(pairs):
        free = _free_axes([inputs.shape, *(each.shape for each in small)])
        with torch.no_grad():
            inputs, small = segment(inputs), _smaller(index, segment, small)
            _check_features(index, inputs)
            classes = _check_logits(index, head(inputs), classes)
        inputs = inputs.contiguous()
        features = None if index == last else tuple(inputs.shape[1:])
        smaller = () if index == last else tuple(tuple(each.shape[1:]) for each in small)
        stage = Stage(segment, head, index == last).eval()
        yield StageExample(stage, arguments, features, smaller, free)
        arguments = (inputs, torch.arange(0, EXAMPLE_STORED, 2))


def _smaller(index: int, segment: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    try:
        return [segment(each) for each in inputs]
    except RuntimeError as error:
        raise InvalidInput(
            f"segment {index} does not run at every one of --sizes: its input is too small there; "
            "leave out the smallest size, or give a larger one",
            "sizes",
        ) from error


def _free_axes(shapes: Sequence[Sequence[int]]) -> dict[int, tuple[int, int]]:
    """The axes in which ``shapes`` differ, with the least and the largest length of each."""
    lengths = [(min(axis), max(axis)) for axis in zip(*shapes, strict=True)]
    return {axis: ends for axis, ends in enumerate(lengths) if ends[0] < ends[1]}


def _check_features(index: int, features: object) -> None:
    if not isinstance(features, Tensor):
        raise InvalidInput(
            f"segment {index} returns {kind_of(features)}, not one tensor; pack its "
            "outputs into one, for example flattened and joined along axis 1",
            "network",
        )
    if features.dtype != torch.float32 or features.ndim < 2 or len(features) != EXAMPLE_STORED:
        raise InvalidInput(
            f"segment {index} returns {features.dtype} {list(features.shape)} for a batch of "
            f"{EXAMPLE_STORED}, not torch.float32 [batch, ...]",
            "network",
        )


def _check_logits(index: int, logits: Tensor, classes: int | None) -> int:
    if logits.dtype != torch.float32 or logits.ndim != 2 or logits.shape[1] < 2:
        raise InvalidInput(
            f"head {index} returns {logits.dtype} {list(logits.shape)}, not torch.float32 "
            "[batch, classes] with two classes or more",
            "network",
        )
    found = logits.shape[1]
    if classes is not None and found != classes:
        raise InvalidInput(f"head {index} has {found} classes, not {classes}", "network")
    return found


def _replace_global_pools(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
            setattr(module, name, GlobalMean())
        else:
            _replace_global_pools(child)
