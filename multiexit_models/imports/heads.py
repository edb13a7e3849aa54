"""Early exits for an imported classifier: heads trained on the features of its frozen segments."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from delen.bundle.manifest import InputSpec
from multiexit_models.attach.heads import HeadFactory, Reordered
from multiexit_models.data.dataset import Labelled
from multiexit_models.export.chain import all_rows, onnx_segment
from multiexit_models.export.graphs import FEATURES_OUT, LOGITS, append, tail_graph
from multiexit_models.export.stage import EXAMPLE_BATCH
from multiexit_models.imports.cut import Place
from multiexit_models.macs import macs_per_stage
from multiexit_models.network import MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.train.checkpoint_notes import resume_note
from multiexit_models.train.recipe import Recipe
from multiexit_models.train.training import train

_HEAD = "head."


class OnnxSegment(nn.Module):
    """An ONNX segment without a head as a module that is not trained."""

    def __init__(self, graph: onnx.ModelProto, max_batch: int | None) -> None:
        super().__init__()
        self._run = onnx_segment(graph.SerializeToString())
        self._takes_rows = len(graph.graph.input) > 1
        self._max_batch = max_batch
        self._digest = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()

    def extra_repr(self) -> str:
        """By which a checkpoint knows the file's weights, which torch does not see."""
        return self._digest

    def forward(self, features: Tensor) -> Tensor:
        parts = [
            self._part(part) for part in torch.split(features, self._max_batch or len(features))
        ]
        return torch.from_numpy(np.concatenate(parts))

    def _part(self, features: Tensor) -> NDArray[np.float32]:
        arguments = [features.detach().numpy()]
        if self._takes_rows:
            arguments.append(all_rows(len(features)))
        return self._run(*arguments)[0]


def with_heads(
    segments: Sequence[onnx.ModelProto],
    places: Sequence[Place],
    classes: int,
    make: HeadFactory,
    max_batch: int | None,
) -> MultiExitNetwork:
    """``segments`` with a new head at each of ``places``; the last gives its own logits."""
    heads = [_make_head(place, classes, make) for place in places]
    frozen = [OnnxSegment(segment, max_batch) for segment in segments]
    return MultiExitNetwork(frozen, [*heads, nn.Identity()])


def _make_head(place: Place, classes: int, make: HeadFactory) -> nn.Module:
    if not place.channels_last:
        return make(place.shape, classes)
    height, width, channels = place.shape
    return nn.Sequential(Reordered(0, 3, 1, 2), make((channels, height, width), classes))


def train_heads(
    network: MultiExitNetwork,
    data: Labelled,
    input: InputSpec,
    recipe: Recipe,
    checkpoint: Path,
    bar: Bar,
) -> None:
    """Train the heads of ``network`` alone, to the labels and to the last exit's answers.

    A training that was killed goes on from ``checkpoint``.
    """
    train(
        network,
        data,
        recipe,
        input=input,
        device="cpu",
        checkpoint=checkpoint,
        on_resume=resume_note(checkpoint, recipe, bar),
        on_step=bar.step,
    )


def join_heads(
    segments: Sequence[onnx.ModelProto], network: MultiExitNetwork, places: Sequence[Place]
) -> list[onnx.ModelProto]:
    """``segments`` with the ``logits`` of the heads of ``network`` as their first outputs."""
    joined = []
    for segment, head, place in zip(segments, network.heads, places, strict=False):
        model = onnx.ModelProto()
        model.CopyFrom(segment)
        example = torch.zeros(EXAMPLE_BATCH, *place.shape)
        tail = tail_graph(head, example, FEATURES_OUT, LOGITS, _HEAD)
        append(model.graph, tail)
        model.graph.output.insert(0, tail.output[0])
        joined.append(model)
    return [*joined, segments[-1]]


def head_macs(network: MultiExitNetwork, places: Sequence[Place]) -> list[int]:
    """Multiply-adds of each early head, for one sample."""
    counts = []
    for head, place in zip(network.heads, places, strict=False):
        alone = MultiExitNetwork([nn.Identity()], [head]).eval()
        counts.append(macs_per_stage(alone, torch.zeros(1, *place.shape))[1][0])
    return counts
