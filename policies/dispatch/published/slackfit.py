"""SlackFit (Khare et al., SuperServe, NSDI 2025): depth and batch that fill the slack.

Pairs (exit, batch) are put into evenly spaced buckets by their latency. With the slack of the
request whose deadline is the earliest, the bucket of the highest latency below it is taken, in it
the largest batch, of these the deepest exit. The batch then runs to that exit and is answered.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import ChosenExits, first_in_rank, sizes


class SlackFit(NoFeedback):
    """Keeps the exits chosen for tasks that have started."""

    name = "slackfit"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self) -> None:
        self._chosen = ChosenExits()

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        started = self._chosen.go_on(waiting, models)
        if started is not None:
            return started
        lead = first_in_rank(waiting.values())
        group, view = waiting[Key(lead.model, 0)], models[lead.model]
        exit, batch = self.fit(lead.deadline - now, lead.last, len(group), view)
        return self._chosen.start(group.first(batch), exit)

    @staticmethod
    def fit(slack: float, last: int, queue: int, view: ModelView) -> tuple[int, int]:
        """The exit up to ``last``, and how many of the ``queue`` run to it as a batch."""
        width = view.latency_upper(0, 0, 1)
        best, chosen = (0, 0, 0), (0, 1)
        for batch in sizes(min(queue, view.max_batch)):
            for exit in range(last + 1):
                latency = view.latency_upper(0, exit, batch)
                if latency <= slack:
                    found = (int(min(latency, 1e6 * width) / width), batch, exit)
                    if found > best:
                        best, chosen = found, (exit, batch)
        return chosen

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return self._chosen.runs_on(task)

    def ended(self, now: float, task: Task) -> None:
        self._chosen.forget(task)
