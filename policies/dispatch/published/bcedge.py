"""BCEdge (Zhang et al., arXiv 2305.01519): batch size and number of concurrent batches, learnt.

Once a period a policy of maximum entropy (discrete soft actor-critic, trained in the simulator by
``delen train-policy``) picks for each model how large a batch may be, and how many may run at
once. Its reward is the utility ``log(throughput / (latency / SLO))``, in which only what was
answered in time counts as throughput. Here it takes the action that it holds most probable.

No code of the authors is public. Where this differs from the paper: model and input shape enter
the state by what they cost on this device, so that one network serves all models; all of it is in
units of the deadline. Exits are the daemon's: a batch shrinks at each as its plan and exit policy
have it, and what has begun goes before what is new. A batch never waits to grow, and what can no
longer be answered in time is given up. The number of lanes is a limit: the scheduler starts no
batch beside others where it does not pay. Its state has no requests without deadlines; the default
decides about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delen.core.dispatch import (
    Group,
    Key,
    ModelView,
    PolicyCapabilities,
    Ran,
    Task,
    Turn,
)
from policies.dispatch.published.bcedge_weights import WEIGHTS
from policies.dispatch.published.shared import first_in_rank
from policies.learnt import (
    Floats,
    OutsideTraining,
    learnt_from_arrays,
    learnt_from_text,
    network_shapes,
)


class Setting(NamedTuple):
    """A batch has at most ``batch`` requests, and starts while fewer than ``lanes`` batches run."""

    batch: int
    lanes: int


SETTINGS = tuple(Setting(batch, lanes) for batch in (1, 2, 4, 8, 16, 32) for lanes in (1, 2, 3, 4))
FEATURES = (
    "log2(deadline / time of one)",
    "log2(largest batch)",
    "log2(gain of a batch of 4)",
    "log2(gain of the largest batch)",
    "lanes",
    "log2(gain of two lanes)",
    "log2(gain of all lanes)",
    "log2(load)",
    "backlog / deadline",
    "share late",
)
SHAPES = network_shapes(len(FEATURES), 32, len(SETTINGS))

PERIOD = 4.0
"""Deadlines that a setting lasts; if ENOUGH requests have ended, it may be but half of one."""

ENOUGH = 24
_SOONEST = 0.5

_GAIN = 0.4
"""Weight of the last period in the rate of arrivals and the share that was late."""

_SHORTEST = 1e-6
_LEAST_LOAD = 0.01

LONGEST_DELAY = 1.0
"""Seconds after which something runs, as the scheduler demands."""

_SLACK = 1.1
_FEW = 64
"""Where more tasks wait, none of them is held back for the lanes."""


class _Watched:
    """What a model's requests were like in the last periods, and the setting for this one."""

    __slots__ = (
        *("ended", "late", "present", "problem", "rate", "running"),
        *("setting", "share_late", "since", "soonest", "until"),
    )

    def __init__(self, now: float, setting: Setting) -> None:
        self.setting = setting
        self.since = self.soonest = self.until = now
        self.ended = self.late = self.running = self.present = 0
        self.rate = self.share_late = 0.0
        self.problem: str | None = None

    def is_over(self, now: float) -> bool:
        """Whether the period is."""
        return now >= self.until or (self.ended >= ENOUGH and now >= self.soonest)

    def observe(self, now: float, waiting: int) -> None:
        """The period is over, and ``waiting`` requests wait for any segment."""
        present = waiting + self.running
        rate = max(0, self.ended + present - self.present) / (now - self.since)
        late = self.late / max(1, self.ended)
        gain = _GAIN if self.rate else 1.0
        self.rate += gain * (rate - self.rate)
        self.share_late += gain * (late - self.share_late)
        self.since, self.present = now, present
        self.ended = self.late = 0


class BCEdge:
    """Keeps for each model what it watched. ``learnt`` is what `delen train-policy` wrote, None
    for what delen ships; Damaged says what is wrong with it."""

    name = "bcedge"
    capabilities = PolicyCapabilities(admits=False)
    first = Setting(1, SETTINGS[-1].lanes)
    """The setting before anything was watched."""

    def __init__(self, learnt: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        if learnt is None:
            self.learnt = learnt_from_text(WEIGHTS, SHAPES)
        else:
            self.learnt = learnt_from_arrays(learnt, SHAPES)
        self._watched: dict[str, _Watched] = {}
        self._delayed_since: float | None = None

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        self._watch(now, waiting, models)
        turn = self._start(now, waiting, models)
        if turn.run:
            self._watched[turn.run[0].model].running += len(turn.run)
        if turn.run or turn.refuse:
            self._delayed_since = None
        elif self._delayed_since is None:
            self._delayed_since = now
        return turn

    def ran(self, now: float, ran: Ran) -> None:
        watched = self._watched.get(ran.key.model)
        if watched is not None:  # it was not if the default ran it
            watched.running = max(0, watched.running - ran.batch)

    def ended(self, now: float, task: Task) -> None:
        watched = self._watched.get(task.model)
        if watched is not None:
            watched.ended += 1
            watched.late += now > task.deadline

    def pick(self, now: float, state: Floats, view: ModelView) -> Setting:
        """The setting from ``now`` on; OutsideTraining where nothing was learnt of the state."""
        values = self.learnt.values(state, FEATURES)
        return SETTINGS[int(np.where(possible(view), values, -inf).argmax())]

    def _watch(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> None:
        """Set anew the models whose period is over; OutsideTraining if one cannot be set."""
        for key, group in waiting.items():
            watched = self._watched.get(key.model)
            if watched is None:
                watched = self._watched[key.model] = _Watched(now, self.first)
            if not key.segment and watched.is_over(now):
                count = sum(len(each) for each in waiting.values() if each.key.model == key.model)
                self._set(now, group.first(1)[0], count, watched, models[key.model])
            if watched.problem is not None:
                raise OutsideTraining(watched.problem)

    def _set(
        self, now: float, first: Task, waiting: int, watched: _Watched, view: ModelView
    ) -> None:
        """A period begins; ``first`` leads the ``waiting`` requests of the model."""
        watched.problem = None
        if first.deadline == inf:
            watched.problem = "a request has no deadline, and all had one in the training"
            return
        within = first.deadline - first.arrived
        watched.soonest, watched.until = now + _SOONEST * within, now + PERIOD * within
        if now == watched.since:  # nothing is known of the rate
            return
        watched.observe(now, waiting)
        state = _state(first, within, waiting, watched, view)
        try:
            watched.setting = self.pick(now, state, view)
        except OutsideTraining as error:
            watched.problem = str(error)

    def _start(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        begun = [group for key, group in waiting.items() if key.segment]
        lead = first_in_rank(begun or waiting.values())
        view, setting = models[lead.model], self._watched[lead.model].setting
        tasks = waiting[Key(lead.model, lead.segment)].first(min(setting.batch, view.max_batch))
        soonest = now + view.typical(lead.segment, lead.segment, 1)
        lost = [task for task in tasks if task.exit < 0 and task.deadline < soonest]
        if lost:
            return Turn(refuse=lost)
        if view.busy >= setting.lanes:
            wake = self._wait_for_lane(now, waiting, models)
            if wake > now:
                return Turn(wake=wake)
        return Turn(run=tasks)

    def _wait_for_lane(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> float:
        """Until when all that waits may wait for a batch to end."""
        if self._delayed_long(now) or sum(map(len, waiting.values())) > _FEW:
            return now
        return min(_latest_start(group, models[key.model]) for key, group in waiting.items())

    def _delayed_long(self, now: float) -> bool:
        since = self._delayed_since
        return since is not None and now >= since + LONGEST_DELAY


def possible(view: ModelView) -> Sequence[bool]:
    """Which of SETTINGS the device has lanes, and the model batches, for."""
    most, lanes = view.max_batch, len(view.corun)
    return [each.batch <= most and each.lanes <= lanes for each in SETTINGS]


def _latest_start(tasks: Iterable[Task], view: ModelView) -> float:
    """When the first of ``tasks`` has to start to be in time beside as many others as may run,
    with a margin for what is believed otherwise by then."""
    slower = _SLACK * view.corun[-1] / view.slowdown_factor
    return min(
        task.deadline - slower * view.latency_upper(task.segment, task.last, 1) for task in tasks
    )


def _state(first: Task, within: float, waiting: int, watched: _Watched, view: ModelView) -> Floats:
    """The FEATURES of a model whose requests are due ``within`` seconds, as is the ``first``; the
    time of one is what that takes alone."""
    most, corun, one = view.max_batch, view.corun, view.expected(first)
    few, lanes, last = min(4, most), len(corun), view.exits - 1
    alone, within = view.typical(0, last, 1), max(within, _SHORTEST)
    return np.array(
        [
            log2(within / one),
            log2(most),
            log2(few * alone / view.typical(0, last, few)),
            log2(most * alone / view.typical(0, last, most)),
            lanes,
            log2(2 / corun[1]) if lanes > 1 else 0.0,
            log2(lanes / corun[-1]),
            log2(max(watched.rate * one, _LEAST_LOAD)),
            waiting * one / within,
            watched.share_late,
        ]
    )
