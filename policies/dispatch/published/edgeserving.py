"""EdgeServing (Cao et al., ICCCN 2026): model, exit and batch chosen jointly by one score.

``score = Q * B * acc / t - Z * violations + 0.05 * Z * B`` over all models, exits and batch sizes
B: Q requests wait for the model, its exit has accuracy acc and takes t milliseconds, in which that
many of the batch pass their deadlines. Z is the model's virtual queue of violations:
``Z <- clip(Z + violations - 0.05 * served, 0, 1000)``. What has started runs to its exit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from delen.core.dispatch import Group, Key, ModelView, PolicyCapabilities, Ran, Task, Turn
from policies.dispatch.batching import go_on, sizes

_ALLOWED = 0.05
_MOST = 1000.0


class EdgeServing:
    """Keeps Z, and the exit chosen for each task that has started. Floors keep their plan."""

    name = "edgeserving"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self) -> None:
        self._violated: dict[str, float] = {}
        self._chosen: dict[int, int] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        started = go_on(waiting, models, self._reached)
        if started is not None:
            return started
        best = -inf
        run: Sequence[Task] = ()
        for key, group in waiting.items():
            view, price = models[key.model], self._violated.get(key.model, 0.0)
            tasks = group.first(view.max_batch)
            for batch in sizes(len(tasks)):
                for exit, accuracy in enumerate(view.accuracies):
                    seconds = view.latency_upper(0, exit, batch)
                    violations = sum(task.deadline < now + seconds for task in tasks[:batch])
                    score = len(group) * batch * accuracy / (1e3 * seconds)
                    score += price * (_ALLOWED * batch - violations)
                    if score > best:
                        best, run, chosen = score, tasks[:batch], exit
        self._chosen.update((task.id, chosen) for task in run)
        return Turn(run=run)

    def _reached(self, task: Task) -> bool:
        return not task.floor and task.exit >= self._chosen.get(task.id, task.last)

    def ran(self, now: float, ran: Ran) -> None:
        """Nothing to learn."""

    def ended(self, now: float, task: Task) -> None:
        self._chosen.pop(task.id, None)
        violated = self._violated.get(task.model, 0.0) + (now > task.deadline) - _ALLOWED
        self._violated[task.model] = min(max(violated, 0.0), _MOST)
