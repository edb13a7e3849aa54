"""All streams of a run, event by event: frames are captured, handed over, arrive, are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from delen.simulate.streams.stream import Stream

_CAPTURE, _HAND_OVER, _ARRIVE, _ANSWER, _REFUSE, _GIVE_UP, _LET_GO = range(7)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A frame at the daemon since ``at``: its stream and frame, and what was chosen for it."""

    stream: int
    frame: int
    at: float
    index: int
    max_latency: float | None


class Streams:
    """A queue of events. Who plays the daemon takes what is next, and reports each answer."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams
        self._events: list[tuple[float, int, int, int, int, float, float | None]] = []
        self._pushed = 0
        for number, stream in enumerate(streams):
            if stream.footage.captured:
                self._push(stream.footage.captured[0], _CAPTURE, number, 0)

    @property
    def next_at(self) -> float:
        """When the next event is, in seconds; inf if none is left."""
        return self._events[0][0] if self._events else inf

    def take(self) -> Arrived | None:
        """Let the next event happen; the frame, where one arrives at the daemon."""
        now, _, kind, number, frame, value, bound = heappop(self._events)
        stream = self.streams[number]
        if kind == _ARRIVE:
            return Arrived(number, frame, now, int(value), bound)
        if kind == _HAND_OVER:
            arrives, given_up = stream.hand_over(frame, int(value), now)
            if arrives < inf:
                self._push(arrives, _ARRIVE, number, frame, value, bound)
            self._push(given_up, _GIVE_UP, number, frame)
            return None
        if kind == _CAPTURE:
            captured = stream.footage.captured
            if frame + 1 < len(captured):
                self._push(captured[frame + 1], _CAPTURE, number, frame + 1)
            sending = stream.capture(frame)
        else:
            if kind == _ANSWER:
                stream.answered(frame, now, value)
            elif kind != _LET_GO:
                stream.failed(frame, now, "refused" if kind == _REFUSE else "unanswered")
            due = stream.let_go(now)
            if due is not None:
                self._push(due, _LET_GO, number, frame)
            sending = stream.send(now)
        if sending is not None:
            encoded = now + sending.option.encoding
            bound = sending.max_latency
            self._push(encoded, _HAND_OVER, number, sending.frame, float(sending.index), bound)
        return None

    def answer(self, arrived: Arrived, now: float, correct: float, exit: int = 0) -> None:
        """The answer from ``exit`` leaves at ``now``; it is right with probability ``correct``."""
        self.streams[arrived.stream].note(arrived.frame, exit, correct)
        back = self._back(arrived, now)
        self._push(back, _ANSWER, arrived.stream, arrived.frame, now - arrived.at)

    def refuse(self, arrived: Arrived, now: float) -> None:
        """The daemon refuses the frame at ``now``."""
        self._push(self._back(arrived, now), _REFUSE, arrived.stream, arrived.frame)

    def lose(self, arrived: Arrived, now: float) -> None:
        """The client learns at ``now`` that nobody will answer the frame."""
        self._push(now, _GIVE_UP, arrived.stream, arrived.frame)

    def _back(self, arrived: Arrived, now: float) -> float:
        return now + self.streams[arrived.stream].back(arrived.frame)

    def _push(
        self,
        at: float,
        kind: int,
        stream: int,
        frame: int,
        value: float = 0.0,
        bound: float | None = None,
    ) -> None:
        self._pushed += 1
        heappush(self._events, (at, self._pushed, kind, stream, frame, value, bound))
