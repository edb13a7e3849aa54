"""Streams with the simulated daemon: its scheduler, planner and policies, on a simulated device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from delen.core.bounds import Bounds
from delen.core.dispatch import DispatchPolicy
from delen.errors import ConfigError
from delen.simulate.job import Job
from delen.simulate.model import SimulatedModel
from delen.simulate.outcome import Fate
from delen.simulate.run import RunSettings, SimulatedDaemon
from delen.simulate.streams.frames import Frames
from delen.simulate.streams.stream import Stream
from delen.simulate.streams.streams import Arrived, Streams
from delen.simulate.trace import Arrival


@dataclass(frozen=True, slots=True)
class Played:
    """The frames of each stream, what the answers took in joules (None if unknown), and the first
    failures of policies in words."""

    frames: list[Frames]
    joules: float | None
    failures: tuple[str, ...]


def play_streams(
    streams: Sequence[Stream],
    models: Sequence[SimulatedModel],
    policy: DispatchPolicy,
    fallback: DispatchPolicy,
    settings: RunSettings,
) -> Played:
    """What becomes of the frames of ``streams``.

    ``models`` go with the options of every stream: ``models[i]`` is the network at the size of
    option i. A frame is about one sample of the calibration table at every size. Its answer counts
    with the accuracy on all of them, of its plan or of the exit at which it was cut off: what is
    drawn would have luck that ``upper_bound`` does not have.
    """
    for stream in streams:
        if len(stream.settings.options) != len(models):
            raise ConfigError(
                f"the stream {stream.settings.name} has {len(stream.settings.options)} sizes; "
                f"the model has {len(models)}"
            )
    # A request's model has a name without @.
    models = [replace(model, name=model.name.replace("@", ":")) for model in models]
    flow = _Flow(streams, models, settings.seed)
    by_name = {model.name: model for model in models}
    daemon = SimulatedDaemon(by_name, policy, fallback, settings, flow, flow, best_effort=True)
    _, failures = daemon.play()
    return Played([stream.frames() for stream in streams], flow.joules, failures)


class _Flow:
    """Where the daemon's requests come from, and where its answers go."""

    def __init__(
        self, streams: Sequence[Stream], models: Sequence[SimulatedModel], seed: int
    ) -> None:
        self._events = Streams(streams)
        self._streams = streams
        self._names = [model.name for model in models]
        self._accuracies = [model.planner.accuracies for model in models]
        count = min(model.calibration.samples for model in models)
        rng = np.random.default_rng((seed, 6))
        self._samples: list[list[int]] = [
            rng.integers(count, size=stream.settings.frames).tolist() for stream in streams
        ]
        self._arrived: dict[int, Arrived] = {}
        self._rows = 0
        self.joules: float | None = 0.0
        """What all answers took; None if that is unknown."""

    @property
    def next_at(self) -> float:
        return self._events.next_at

    def take(self) -> tuple[int, Arrival, int] | None:
        arrived = self._events.take()
        if arrived is None:
            return None
        self._rows += 1
        self._arrived[self._rows] = arrived
        stream = self._streams[arrived.stream].settings.name
        arrival = Arrival(
            arrived.at,
            tenant=stream,
            model=self._names[arrived.index],
            stream=stream,
            bounds=Bounds(max_latency=arrived.max_latency),
        )
        return self._rows, arrival, self._samples[arrived.stream][arrived.frame]

    def decided(self, seconds: float) -> None:
        pass

    def ran(self, slowdown: float) -> None:
        pass

    def refuse(self, row: int, now: float, fate: Fate) -> None:
        self._events.refuse(self._arrived.pop(row), now)

    def answer(
        self, row: int, now: float, job: Job, exit: int, confidence: float, latency: float
    ) -> None:
        arrived = self._arrived.pop(row)
        plan = job.plan
        ended_early = plan.threshold is not None and confidence >= plan.threshold
        is_planned = exit == plan.exit or ended_early
        expected = plan.accuracy if is_planned else None
        if expected is None:
            expected = self._accuracies[arrived.index][exit]
        self._events.answer(arrived, arrived.at + latency, expected, exit)
        if self.joules is not None:
            self.joules = None if job.joules is None else self.joules + job.joules
