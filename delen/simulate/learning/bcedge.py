"""Trains BCEdge's policy: each episode is a device under a load that changes twice.

A device is one of the ``models`` with as many lanes as its profile says how they slow each other
down. Rate and deadline are drawn for the device: a share of what it can do at its best, and some
times of the whole network. The whole scheduler is played, not a coarse model of it. A period's
reward is the utility of the requests that arrived in it, in units of their own: ``log(share in time
/ (latency / time of one))``, which differs from the published one by what no setting changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from delen.core.bounds import Bounds
from delen.core.dispatch import ModelView
from delen.scheduler.policy_guard import InRank
from delen.simulate.arrivals import Poisson
from delen.simulate.device import DeviceSettings
from delen.simulate.learning.sac import Seen, SoftActorCritic, probabilities
from delen.simulate.learning.training import Training, falling, write_module
from delen.simulate.model import SimulatedModel
from delen.simulate.outcome import Outcomes
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Arrival, Trace
from policies.dispatch.published.bcedge import (
    FEATURES,
    PERIOD,
    SETTINGS,
    SHAPES,
    BCEdge,
    Setting,
    possible,
)
from policies.learnt import Floats, Learnt, Network

PARTS = 3
DEADLINES = (3.0, 60.0)
"""From and to so many times of the whole network."""

LOADS = (0.03, 0.95)
"""Of what the device can do."""

UPDATES = 80
ENTROPY = 0.3
"""Of the greatest there is; the share of chance that the actor keeps."""

EXPLORE = (1.0, 0.25)
"""The share of actions drawn evenly in the first episode, and from two thirds of them on."""

REQUESTS = 300
"""At most in each part, which is over after _PERIODS."""

_PERIODS = 12
_FAILURES = 0.1
_SEEN = 40_000
_WORST = -4.0


class _Explorer(BCEdge):
    """Draws settings by their probabilities, a share of them evenly, and notes when it set what
    and what it saw."""

    def __init__(self, network: Network, explore: float, rng: np.random.Generator) -> None:
        super().__init__()
        self._network, self._explore, self._rng = network, explore, rng
        self.times: list[float] = []
        self.states: list[Floats] = []
        self.actions: list[int] = []
        self.possible: list[Sequence[bool]] = []

    def pick(self, now: float, state: Floats, view: ModelView) -> Setting:
        allowed = possible(view)
        is_even = self._rng.random() < self._explore
        values = np.zeros(len(SETTINGS)) if is_even else self._network.values(state)
        share = probabilities(values[None], np.array([allowed]))[0][0]
        action = int(self._rng.choice(len(SETTINGS), p=share))
        self.times.append(now)
        self.states.append(state)
        self.actions.append(action)
        self.possible.append(allowed)
        return SETTINGS[action]


class BCEdgeTraining(Training):
    """``models`` with profiles that say how batches and lanes slow down."""

    policy = "bcedge"
    merit = "utility"
    subject_words = "profiles"

    def __init__(self, models: Sequence[SimulatedModel], episodes: int, seed: int = 0) -> None:
        super().__init__([model.profile.to_json() for model in models], episodes, seed)
        self._models = models
        self._learner = SoftActorCritic(SHAPES, self._rng)
        none = np.zeros((0, len(FEATURES)), "f4"), np.zeros((0, len(SETTINGS)), bool)
        self._seen = Seen(*none, np.zeros(0, np.int64), np.zeros(0), *none)
        self._low = np.full(len(FEATURES), np.inf)
        self._high = -self._low

    @property
    def learnt(self) -> Learnt:
        met = np.isfinite(self._low)
        low, high = (np.where(met, each, 0.0) for each in (self._low, self._high))
        return Learnt(self._learner.kept, low, high)

    def explored(self, episode: int) -> float:
        return falling(EXPLORE, episode, self.episodes)

    def step(self) -> float:
        episode = len(self.curve)
        model = self._models[episode % len(self._models)]
        device = draw_device(model, self._rng)
        one = whole_seconds(model)
        within = one * float(np.exp(self._rng.uniform(*np.log(DEADLINES))))
        trace = self._draw_trace(model, device, within)
        explorer = _Explorer(self._learner.actor, self.explored(episode), self._rng)
        settings = RunSettings(device, seed=int(self._rng.integers(1 << 31)))
        outcomes = run(trace, {model.name: model}, explorer, InRank(), settings)
        if outcomes.policy_failures > _FAILURES * len(trace):
            raise RuntimeError(f"bcedge failed in its training: {outcomes.failures}")
        self._add(explorer, outcomes, within, one)
        if len(self._seen.actions):
            self._learner.update(self._seen, UPDATES, ENTROPY)
        self.curve.append(utility(outcomes, within))
        return self.curve[-1]

    def _draw_trace(self, model: SimulatedModel, device: DeviceSettings, within: float) -> Trace:
        times, start, most = [], 0.0, highest_rate(model, device)
        for _ in range(PARTS):
            rate = most * float(self._rng.uniform(*LOADS))
            seconds = min(_PERIODS * PERIOD * within, REQUESTS / rate)
            times.append(start + Poisson(rate).times(seconds, self._rng))
            start += seconds
        bounds = Bounds(max_latency=within)
        return Trace(tuple(Arrival(float(at), bounds=bounds) for at in np.concatenate(times)))

    def _add(self, explorer: _Explorer, outcomes: Outcomes, within: float, one: float) -> None:
        """Keep each period that was followed by another, and in which requests arrived."""
        if len(explorer.times) < 2:
            return
        self._low = np.minimum(self._low, np.min(explorer.states, axis=0))
        self._high = np.maximum(self._high, np.max(explorer.states, axis=0))
        number = np.searchsorted(explorer.times, outcomes.arrived, side="right") - 1
        periods = range(len(explorer.times) - 1)
        rewards = np.full(len(periods), np.nan)
        in_time = outcomes.answered & ~outcomes.missed_latency
        for period in periods:
            rows = number == period
            if in_time[rows].any():
                latency = outcomes.latency[rows & outcomes.answered].mean()
                rewards[period] = max(_WORST, log(in_time[rows].mean() * one / latency))
            elif rows.any():
                rewards[period] = _WORST
        kept = ~np.isnan(rewards)
        states, allowed = np.array(explorer.states, "f4"), np.array(explorer.possible)
        new = Seen(
            states[:-1][kept],
            allowed[:-1][kept],
            np.array(explorer.actions[:-1], np.int64)[kept],
            rewards[kept],
            states[1:][kept],
            allowed[1:][kept],
        )
        self._seen = Seen._make(
            np.concatenate((old, added))[-_SEEN:]
            for old, added in zip(self._seen, new, strict=True)
        )

    def write(self, file: Path) -> None:
        about = f"BCEdge's policy: {self.episodes} episodes, seed {self.seed}."
        if file.suffix == ".py":
            write_module(self.learnt.to_text(), file, about)
        else:
            arrays: dict[str, Any] = {**self.learnt.to_arrays()}
            np.savez(file, **arrays)

    def state(self) -> dict[str, Any]:
        seen = {f"seen_{name}": column for name, column in self._seen._asdict().items()}
        return {**seen, "low": self._low, "high": self._high, **self._learner.state()}

    def take(self, state: dict[str, Any]) -> None:
        self._seen = Seen._make(state[f"seen_{name}"] for name in Seen._fields)
        self._low, self._high = state["low"], state["high"]
        self._learner.restore(state)


def whole_seconds(model: SimulatedModel, batch: int = 1) -> float:
    """Seconds of the whole network on a ``batch``, alone on the device."""
    costs = model.costs()
    return costs.typical(0, costs.segments - 1, batch)


def highest_rate(model: SimulatedModel, device: DeviceSettings) -> float:
    """Requests a second to the deepest exit, with the best batch and number of lanes."""
    most = min(model.max_batch, model.profile.largest_batch)
    sizes = {setting.batch for setting in SETTINGS if setting.batch <= most}
    at_once = max(n / factor for n, factor in enumerate(device.interference, start=1))
    return at_once * max(batch / whole_seconds(model, batch) for batch in sizes)


def draw_device(model: SimulatedModel, rng: np.random.Generator) -> DeviceSettings:
    """The device of the model's profile, with some of the lanes that it knows."""
    known = model.profile.interference or (1.0,)
    lanes = int(rng.integers(1, min(len(known), SETTINGS[-1].lanes) + 1))
    return DeviceSettings(lanes, tuple(known[:lanes]))


def utility(outcomes: Outcomes, within: float) -> float:
    """``log(throughput / (latency / SLO))`` of requests due ``within`` seconds, by those answered
    in time a second and the mean latency of all answers; 0 if it is less, or nothing was."""
    answered = outcomes.answered
    in_time = int((answered & ~outcomes.missed_latency).sum())
    if not in_time:
        return 0.0
    seconds = float(outcomes.arrived[-1] - outcomes.arrived[0]) or within
    latency = float(outcomes.latency[answered].mean())
    return max(0.0, log(in_time / seconds * within / latency))
