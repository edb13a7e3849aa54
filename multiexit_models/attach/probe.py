"""Where exits go, by measurement: a module's cost up to each place, and the accuracy there.

A linear probe on the frozen, pooled features (Alain and Bengio, "Understanding intermediate layers
using linear classifier probes", 2016) predicts within minutes what a trained exit would reach. The
probe is ridge regression, whose leave-one-out predictions follow from one fit (Allen, "The
relationship between variable selection and data augmentation", Technometrics 1974), so that all
samples both train and test it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from math import ceil
from time import perf_counter

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from delen.errors import InvalidInput
from multiexit_models.attach.cut import split
from multiexit_models.attach.cut_points import Cuttable, Place, find, read
from multiexit_models.attach.exits import candidates, end_place, reading_order
from multiexit_models.attach.heads import pooled
from multiexit_models.attach.placement import place_exits
from multiexit_models.attach.trace import in_evaluation

_BATCH = 64
_WARM_UP = 3
_RIDGES = (0.01, 0.1, 1.0, 10.0)  # against a kernel whose diagonal is about 1


def place_by_probe(
    module: nn.Module,
    inputs: Tensor,
    labels: NDArray[np.integer],
    exits: int,
    *,
    repeats: int = 20,
    on_part: Callable[[int, int], None] | None = None,
) -> tuple[str, ...]:
    """The places of all but the last of ``exits`` exits, for ``attach_exits(..., at=...)``.

    ``inputs``: float ``[n, ...]`` as ``module`` accepts them, with ``labels`` int ``[n]``, a few
    hundred to a few thousand that the module has not been trained on. `placement.place_exits` says
    which places are best. ``on_part(done, total)`` is called after each part of the work. Raises
    InvalidInput when the module cannot be cut, or has fewer places.
    """
    cuttable = read(module, inputs[:1])
    names = tuple(place.point.name for place in candidates(cuttable))
    if not 1 <= exits <= len(names) + 1:
        raise InvalidInput(
            f"exits must be 1 to {len(names) + 1} for this module, not {exits}", "exits"
        )
    done = count(1)
    total = ceil(len(inputs) / _BATCH) + len(names) + 1 + _WARM_UP + repeats

    def tick() -> None:
        if on_part is not None:
            on_part(next(done), total)

    accuracies = probe_accuracies(module, inputs, labels, names, on_part=tick)
    costs = measure_costs(module, inputs[:1], names, repeats, on_part=tick)
    return tuple(names[index] for index in place_exits(costs, accuracies, exits)[:-1])


def measure_costs(
    module: nn.Module,
    sample: Tensor,
    names: Sequence[str],
    repeats: int = 20,
    on_part: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Seconds up to each of the places ``names``, in the module's order, and to its end.

    Float64 ``[places + 1]``: sums of each part's median over ``repeats`` runs of ``sample``
    ``[1, ...]`` in evaluation.
    """
    if repeats < 1:
        raise InvalidInput(f"repeats must be 1 or more, not {repeats}", "repeats")
    cuttable = read(module, sample)
    parts = split(cuttable, _in_order(cuttable, names), sample)
    seconds: list[list[float]] = []
    with in_evaluation(parts):
        for _ in range(_WARM_UP + repeats):
            features = sample
            seconds.append([])
            for part in parts:
                start = perf_counter()
                features = part(features)
                if features.is_cuda:
                    torch.cuda.synchronize(features.device)
                seconds[-1].append(perf_counter() - start)
            on_part()
    costs: NDArray[np.float64] = np.cumsum(np.median(seconds[_WARM_UP:], axis=0))
    return costs


def probe_accuracies(
    module: nn.Module,
    inputs: Tensor,
    labels: NDArray[np.integer],
    names: Sequence[str],
    batch_size: int = _BATCH,
    on_part: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Leave-one-out accuracy of a linear probe at the places ``names``, in the module's order.

    Float64 ``[places + 1]``; the last is of the features before the module's own classifier.
    ``inputs`` float ``[n, ...]`` as ``module`` accepts them; ``labels`` int ``[n]``.
    """
    if len(inputs) != len(labels) or len(inputs) < 2 or len(np.unique(labels)) < 2:
        raise InvalidInput(
            f"a probe needs a label for each input and at least two classes, not {len(inputs)} "
            f"inputs with {len(labels)} labels of {len(np.unique(labels))} classes",
            "labels",
        )
    cuttable = read(module, inputs[:1])
    end = end_place(cuttable)
    places = [*_in_order(cuttable, names), *([end] if end else [])]
    parts = split(cuttable, places, inputs[:1])[: max(len(places), 1)]
    orders = [reading_order(cuttable, place) for place in places] or [None]
    seen: list[list[Tensor]] = [[] for _ in parts]
    with in_evaluation(parts):
        for features in torch.split(inputs, batch_size):
            for part, order, kept in zip(parts, orders, seen, strict=True):
                features = part(features)
                arranged = features.permute(order) if order else features
                kept.append(pooled(arranged).cpu())
            on_part()
    accuracies = np.zeros(len(seen))
    for index, kept in enumerate(seen):
        accuracies[index] = ridge_accuracy(torch.cat(kept).numpy(), labels)
        on_part()
    return accuracies


def ridge_accuracy(features: ArrayLike, labels: NDArray[np.integer]) -> float:
    """Leave-one-out accuracy of ridge regression on one-hot labels; the best of four ridges.

    ``features`` float ``[n, d]``, ``labels`` int ``[n]``. Takes O(n^3 + n^2 d).
    """
    values = np.asarray(features, dtype=np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    kernel = values @ values.T / values.shape[1] + 1  # the 1 is an intercept
    eigenvalues, vectors = np.linalg.eigh(kernel)
    classes, truth = np.unique(labels, return_inverse=True)
    wanted = np.eye(len(classes))[truth]
    turned = vectors.T @ wanted
    best = 0.0
    for ridge in _RIDGES:
        kept = np.maximum(eigenvalues, 0) / (np.maximum(eigenvalues, 0) + ridge)
        leverage = (vectors**2) @ kept
        fitted = vectors @ (kept[:, None] * turned)
        left_out = (fitted - leverage[:, None] * wanted) / (1 - leverage[:, None])
        best = max(best, float((left_out.argmax(axis=1) == truth).mean()))
    return best


def _in_order(cuttable: Cuttable, names: Sequence[str]) -> list[Place]:
    places = [find(cuttable, name) for name in names]
    if any(
        late.position >= early.position for early, late in zip(places[1:], places, strict=False)
    ):
        raise InvalidInput("the places must be in the module's order, each once", "names")
    return places
