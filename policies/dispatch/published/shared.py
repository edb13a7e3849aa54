"""What these policies share: who leads and who joins a batch, samples that catch up, exits that
were chosen, and which batch sizes are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from delen.core.dispatch import Group, Key, ModelView, Task, Turn


def first_in_rank(groups: Iterable[Group]) -> Task:
    """The task that ranks before all others of ``groups``; at least one must wait."""
    return min((group.first(1)[0] for group in groups), key=lambda task: task.rank)


def first_and_oldest(group: Group, count: int) -> Sequence[Task]:
    """The first ``count`` tasks of ``group`` in order of rank, and the one that arrived first."""
    first = group.first(count)
    return first if len(group) <= count else (*first, group.oldest)


def join(lead: Task, group: Group, now: float, view: ModelView) -> Sequence[Task]:
    """``lead`` and those of its group that may run with it, in order of rank.

    One more joins as long as every task of the batch that would keep its deadline alone, run to
    the end of its plan, still does in the larger batch.
    """
    batch: list[Task] = []
    earliest: dict[int, float] = {}
    for task in (lead, *(mate for mate in group.first(view.max_batch) if mate is not lead)):
        deadline, last = task.deadline, task.last
        if deadline < earliest.get(last, inf) and (
            now + view.latency_upper(task.segment, last, 1) <= deadline
        ):
            earliest[last] = deadline
        size = len(batch) + 1
        if size > view.max_batch or any(
            now + view.latency_upper(task.segment, last, size) > deadline
            for last, deadline in earliest.items()
        ):
            break
        batch.append(task)
    return batch


def catch_up(
    now: float,
    waiting: Mapping[Key, Group],
    models: Mapping[str, ModelView],
    waits: Callable[[float, Group, Group, ModelView], bool],
) -> Turn:
    """Serve the model of the most urgent task: its deepest group, or a shallower one while each
    deeper one ``waits(now, deeper, shallower, view)`` for the next to catch up."""
    urgent = first_in_rank(waiting.values())
    view = models[urgent.model]
    groups = [group for key, group in waiting.items() if key.model == urgent.model]
    groups.sort(key=lambda group: group.key.segment, reverse=True)
    chosen = groups[0]
    for shallower in groups[1:]:
        if not waits(now, chosen, shallower, view):
            break
        chosen = shallower
    return Turn(run=join(chosen.first(1)[0], chosen, now, view))


class ChosenExits:
    """The exits chosen for tasks that have started, which run to them. Floors keep their plan."""

    def __init__(self) -> None:
        self._exits: dict[int, int] = {}

    def start(self, tasks: Sequence[Task], exit: int) -> Turn:
        """Run ``tasks`` to ``exit``."""
        self._exits.update((task.id, exit) for task in tasks)
        return Turn(run=tasks)

    def go_on(self, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]) -> Turn | None:
        """The turn in which tasks that have started go before new ones: those that reached their
        exit are answered, the others run on. None if none has started."""
        started = [group for key, group in waiting.items() if key.segment > 0]
        if not started:
            return None
        lead = first_in_rank(started)
        tasks = waiting[Key(lead.model, lead.segment)].first(models[lead.model].max_batch)
        done = [task for task in tasks if self._is_reached(task)]
        return Turn(answer=done) if done else Turn(run=tasks)

    def runs_on(self, task: Task) -> bool:
        """Whether ``task`` has started, and not yet reached its exit."""
        return task.segment > 0 and not self._is_reached(task)

    def _is_reached(self, task: Task) -> bool:
        return not task.floor and task.exit >= self._exits.get(task.id, task.last)

    def forget(self, task: Task) -> None:
        self._exits.pop(task.id, None)


def sizes(most: int) -> Sequence[int]:
    """The batch sizes worth trying with ``most`` tasks: powers of two, and all of them."""
    return [*(1 << power for power in range((most - 1).bit_length())), most]
