"""Exits on any torch classifier whose forward can be cut into a chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd

from delen.errors import InvalidInput
from multiexit_models.attach.channels import channels_moved
from multiexit_models.attach.cut import split
from multiexit_models.attach.cut_points import Cuttable, Place, find, read
from multiexit_models.attach.heads import HeadFactory, Reordered, pooled_head
from multiexit_models.attach.observe import Seen
from multiexit_models.attach.placement import nearest_in_order
from multiexit_models.attach.trace import FollowMode, in_evaluation, mode
from multiexit_models.network import MultiExitNetwork

_PROBABILITIES = {"softmax", "sigmoid", "Softmax", "Sigmoid"}
# How far, as a share of the cost, an exit may move to stand after a block instead of within one.
_SHARE_PER_LEVEL = 0.01


def attach_exits(
    module: nn.Module,
    sample: Tensor,
    classes: int,
    *,
    at: Sequence[str] | None = None,
    exits: int | None = None,
    preprocess: nn.Module | None = None,
    head: HeadFactory | None = None,
    on_places: Callable[[tuple[str, ...]], None] = lambda names: None,
) -> MultiExitNetwork:
    """Cut ``module`` into segments and put a head after each.

    ``module``: a classifier that accepts one tensor and returns logits ``[batch, classes]``,
    float32. The network shares its layers and parameters, so that a trained backbone stays as it
    is; ``network.train()`` and ``network.eval()`` put those shared layers into that mode.
    ``sample``: one input ``[1, ...]`` as ``module`` accepts it. ``classes``: where ``module``
    returns another number, the network gets new last layers (``nn.Linear`` or ``nn.Conv2d``);
    ``module`` keeps its own.

    ``at``: names of places (see `cut_points`) after which an exit goes, beside the last exit,
    which is the module's own end. Or ``exits``: how many in all, placed by equal shares of the
    multiply-adds, preferring the ends of blocks; `probe.place_by_probe` gives an ``at`` by
    measurement. ``preprocess``: goes before the first segment, from the bundle's input to what
    ``module`` accepts. ``head``: makes the early heads; by default pooling and one linear layer.
    ``on_places`` is called with the names of the places.

    The segments are the backbone up to its final layer with multiply-adds. The last head is that
    layer and what follows, so the last exit's logits are the module's own.

    Raises InvalidInput, naming the layer or the argument, when the module cannot be traced, a
    skip path crosses a cut, or an argument does not fit the module.
    """
    if (at is None) == (exits is None):
        raise InvalidInput("give either at, names of places, or exits, their number", "at")
    cuttable = read(module, sample)
    _check_output(cuttable, classes)
    end = end_place(cuttable)
    places = _named(cuttable, at, end) if at is not None else _by_shares(cuttable, exits or 0)
    on_places(tuple(place.point.name for place in places))
    parts = split(cuttable, [*places, *([end] if end else [])], sample)
    outputs = cuttable.observed.values[cuttable.steps[-1]][0].shape[1]
    if outputs != classes:
        features = torch.zeros(2, *end.point.shape) if end else sample
        _replace_classifier(parts[-1], features.to(sample.device), outputs, classes)
    *segments, last_head = parts if end else (*parts, nn.Identity())
    make = head or pooled_head
    heads = [_make_head(cuttable, place, make, classes, sample) for place in places]
    first = segments[0] if preprocess is None else nn.Sequential(preprocess, segments[0])
    return MultiExitNetwork([first, *segments[1:]], [*heads, last_head])


def end_place(cuttable: Cuttable) -> Place | None:
    """Where the module's own classifier begins: the last place before its last multiply-adds.

    Dropout there belongs to the classifier. None when there is no such place.
    """
    macs = cuttable.observed.macs
    last = max((at for at, step in enumerate(cuttable.steps) if macs[step]), default=0)
    before = [place for place in cuttable.places if place.position < last]
    while before and _is_dropout(cuttable, before[-1].node):
        before.pop()
    return before[-1] if before else None


def candidates(cuttable: Cuttable) -> tuple[Place, ...]:
    """The places worth an exit: the end of the outermost block among those of the same cost."""
    end = end_place(cuttable)
    best: dict[float, Place] = {}
    for place in cuttable.places:
        share = place.point.macs_share
        if end is None or not 0 < share < end.point.macs_share:
            continue
        if share not in best or _depth(cuttable, place) <= _depth(cuttable, best[share]):
            best[share] = place
    return tuple(sorted(best.values(), key=lambda place: place.position))


def reading_order(cuttable: Cuttable, place: Place) -> tuple[int, ...] | None:
    """The order of axes in which heads read the features at ``place``; None: as they are."""
    return channels_moved(place.point.shape, cuttable.observed.channels.get(place.node))


def _depth(cuttable: Cuttable, place: Place) -> int:
    """How deep a place is in nested blocks; a step within a forward counts as deepest."""
    name = place.point.name
    if name in cuttable.trace.outputs:
        return name.count(".")
    return 2 + cuttable.trace.owners[place.node].count(".")


def _is_dropout(cuttable: Cuttable, node: fx.Node) -> bool:
    called: object = node.target
    if node.op == "call_module":
        called = cuttable.trace.module.get_submodule(str(node.target))
    if isinstance(called, FollowMode):
        called = called.function
    return isinstance(called, _DropoutNd) or called is F.dropout


def _named(cuttable: Cuttable, at: Sequence[str], end: Place | None) -> list[Place]:
    if isinstance(at, str):
        raise InvalidInput(f"at must be a list of names, not the text {at!r}", "at")
    chosen: dict[int, str] = {}
    places = []
    for name in at:
        place = find(cuttable, name)
        if end is None or place.position >= end.position:
            raise InvalidInput(
                f"an exit after {name} would see the same features as the module's own classifier, "
                "which is the last exit: name a place before it",
                "at",
            )
        if place.position in chosen:
            raise InvalidInput(f"{chosen[place.position]} and {name} are the same place", "at")
        chosen[place.position] = name
        places.append(place)
    return sorted(places, key=lambda place: place.position)


def _by_shares(cuttable: Cuttable, exits: int) -> list[Place]:
    if exits < 1:
        raise InvalidInput(f"exits must be 1 or more, not {exits}", "exits")
    free = candidates(cuttable)
    if len(free) < exits - 1:
        raise InvalidInput(
            f"the module can be cut at {len(free)} places of different cost, which gives at most "
            f"{len(free) + 1} exits, not {exits}",
            "exits",
        )
    shares = np.array([place.point.macs_share for place in free])
    depths = np.array([_depth(cuttable, place) for place in free])
    wanted = np.arange(1, exits)[:, None] / exits
    chosen = nearest_in_order(np.abs(shares - wanted) + _SHARE_PER_LEVEL * depths)
    return [free[index] for index in chosen]


def _check_output(cuttable: Cuttable, classes: int) -> None:
    if classes < 2:
        raise InvalidInput(f"classes must be 2 or more, not {classes}", "classes")
    last = cuttable.steps[-1]
    logits = cuttable.observed.values[last][0]
    if not isinstance(logits, Seen) or not cuttable.observed.is_features(last):
        given = cuttable.observed.described(last)
        raise InvalidInput(f"the module must return float32 logits, and returns {given}", "module")
    if len(logits.shape) != 2:
        raise InvalidInput(
            f"delen serves classifiers: the module must return logits [batch, classes], and "
            f"returns {list(logits.shape)} for a batch of {logits.shape[0]}",
            "module",
        )
    called: object = last.target
    if last.op == "call_module":
        called = type(cuttable.trace.module.get_submodule(str(last.target)))
    name = called if isinstance(called, str) else getattr(called, "__name__", "")
    if name in _PROBABILITIES:
        raise InvalidInput(
            f"the module ends in {name}, which returns probabilities: remove it, so that the "
            "module returns logits",
            "module",
        )


def _replace_classifier(part: fx.GraphModule, features: Tensor, outputs: int, classes: int) -> None:
    """Put new layers in ``part`` for those that make its ``outputs``, so that it returns
    ``classes`` for a batch of ``features``; the module that it is a part of keeps its own."""
    for node in part.graph.nodes:
        name = str(node.target)
        if node.op == "call_module":
            if (fresh := _resized(part.get_submodule(name), outputs, classes)) is not None:
                part.set_submodule(name, fresh)
        elif node.op == "get_attr":
            _resize_parameter(part, name, outputs, classes)
    try:
        with in_evaluation([part]):
            returned = part(features).shape
    except RuntimeError:  # a layer of as many outputs feeds another one
        returned = None
    if returned != (len(features), classes):
        raise InvalidInput(
            f"the module returns {outputs} classes, not {classes}, and does not end in an "
            f"nn.Linear or nn.Conv2d that can be replaced: make it with {classes} classes "
            f"(num_classes={classes} in torchvision and timm), or replace its last layer first",
            "classes",
        )


def _resized(layer: nn.Module, outputs: int, classes: int) -> nn.Module | None:
    """A new layer like ``layer`` with ``classes`` outputs; None if it hasn't ``outputs`` now."""
    if type(layer) is nn.Linear and layer.out_features == outputs:
        fresh: nn.Module = nn.Linear(layer.in_features, classes, layer.bias is not None)
    elif type(layer) is nn.Conv2d and layer.out_channels == outputs and layer.groups == 1:
        fresh = nn.Conv2d(
            layer.in_channels,
            classes,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
    else:
        return None
    return fresh.to(layer.weight.device, layer.weight.dtype)


def _resize_parameter(part: fx.GraphModule, name: str, outputs: int, classes: int) -> None:
    """Put a new parameter in ``part`` for one of a layer that torch.fx traced into."""
    path, _, attribute = name.rpartition(".")
    owner = part.get_submodule(path)
    old = getattr(owner, attribute)
    is_copy = owner is part or type(owner) is nn.Module  # a layer that is called is shared
    if is_copy and isinstance(old, nn.Parameter) and old.ndim and len(old) == outputs:
        fresh = old.new_zeros(classes, *old.shape[1:])
        if old.ndim > 1:
            nn.init.kaiming_uniform_(fresh, a=5**0.5)  # as nn.Linear and nn.Conv2d begin
        setattr(owner, attribute, nn.Parameter(fresh))


def _make_head(
    cuttable: Cuttable, place: Place, make: HeadFactory, classes: int, sample: Tensor
) -> nn.Module:
    """A head for the features at ``place``, checked on features of zeros."""
    shape = place.point.shape
    if order := reading_order(cuttable, place):
        arranged = tuple(shape[axis - 1] for axis in order[1:])
        made: nn.Module = nn.Sequential(Reordered(*order), make(arranged, classes))
    else:
        made = make(shape, classes)
    made.to(sample.device)
    with torch.no_grad(), mode(made, False):
        logits = made(torch.zeros(2, *shape, device=sample.device))
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidInput(
            f"head must return logits [2, {classes}] for a batch of 2 features {list(shape)}, "
            f"not {given}",
            "head",
        )
    return made
