"""EdgeServing (Cao et al., ICCCN 2026): model, exit and batch chosen jointly by one score.

``score = Q * B * acc / t - Z * violations + 0.05 * Z * B`` over all models, exits and batch sizes
B: Q requests wait for the model, its exit has accuracy acc and takes t milliseconds, in which that
many of the batch pass their deadlines. Z is the model's virtual queue of violations:
``Z <- clip(Z + violations - 0.05 * served, 0, 1000)``. What has started runs to its exit.

It deviates in one point: acc is stretched to the span of the published networks, whose first exits
are hardly right and whose last are right on .78. Where the first exit is right on most samples
already, accuracy over time is always the most at that exit, and no request would go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import ChosenExits, sizes

_FIRST, _BEST = 0.08, 0.78
"""The accuracies that the published networks have at their first and at their best exits."""

_ALLOWED = 0.05
_MOST = 1000.0


class EdgeServing(NoFeedback):
    """Keeps Z, and the exits chosen for tasks that have started."""

    name = "edgeserving"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self) -> None:
        self._violated: dict[str, float] = {}
        self._chosen = ChosenExits()

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        started = self._chosen.go_on(waiting, models)
        if started is not None:
            return started
        best, chosen = -inf, 0
        run: Sequence[Task] = ()
        for key, group in waiting.items():
            view, price = models[key.model], self._violated.get(key.model, 0.0)
            tasks, accuracies = group.first(view.max_batch), _stretched(view.accuracies)
            for batch in sizes(len(tasks)):
                for exit, accuracy in enumerate(accuracies):
                    seconds = view.latency_upper(0, exit, batch)
                    violations = sum(task.deadline < now + seconds for task in tasks[:batch])
                    score = len(group) * batch * accuracy / (1e3 * seconds)
                    score += price * (_ALLOWED * batch - violations)
                    if score > best:
                        best, run, chosen = score, tasks[:batch], exit
        return self._chosen.start(run, chosen)

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return self._chosen.runs_on(task)

    def ended(self, now: float, task: Task) -> None:
        self._chosen.forget(task)
        violated = self._violated.get(task.model, 0.0) + (now > task.deadline) - _ALLOWED
        self._violated[task.model] = min(max(violated, 0.0), _MOST)


def _stretched(accuracies: Sequence[float]) -> Sequence[float]:
    first, best = accuracies[0], max(accuracies)
    if best <= first:
        return accuracies
    scale = (_BEST - _FIRST) / (best - first)
    return [_FIRST + scale * (accuracy - first) for accuracy in accuracies]
