"""What both kinds of stream share: settings, state, and what becomes of an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from typing import Any, get_args

from delen.core.bounds import Bounds, Options, check_cap, check_integer
from delen.core.result import Result
from delen.errors import (
    BatchTooLarge,
    DaemonUnreachable,
    DelenError,
    InvalidInput,
    UnsupportedMediaType,
)
from delen.sdk.address import is_hub
from delen.sdk.async_client import AsyncClient
from delen.sdk.client import Client
from delen.streams.frames import Frame, FrameResult
from delen.streams.model import Encoded, Encoding, StreamedModel
from policies.client.api import ClientController
from policies.client.link import LinkEstimate
from policies.client.stream_state import Answered, DropCause, Sending, StreamState
from policies.plugins import make_controller

PATIENCE = 1.0
_MOST_IN_FLIGHT = 32
"""By default; a connection each, and a thread."""

_WRONG = (InvalidInput, UnsupportedMediaType, BatchTooLarge)


def check_given(
    client: object,
    kind: type[Client] | type[AsyncClient],
    frames: object,
    sources: tuple[type, ...],
) -> None:
    """InvalidInput unless ``client`` is of its ``kind`` and of one daemon, and ``frames`` one of
    the ``sources``."""
    if not isinstance(client, kind):
        raise InvalidInput(f"client is {client!r}; it must be a delen.{kind.__name__}", "client")
    if is_hub(client.url):
        raise InvalidInput(
            f"client is of the hub {client.url}; a stream measures the link to one daemon: give it "
            f"a delen.{kind.__name__} of that",
            "client",
        )
    is_one = isinstance(frames, (str, bytes, bytearray, memoryview))
    if is_one or (frames is not None and not isinstance(frames, sources)):
        given = type(frames).__name__
        raise InvalidInput(f"frames is {given}; it must be an iterator of frames", "frames")


class StreamCore:
    """A stream without its input and output: its state, its model and the arguments of its calls.

    ``Stream`` and ``AsyncStream`` call it one at a time, and ``encode`` from any thread.
    """

    def __init__(
        self,
        *,
        deadline: float,
        fps: float,
        controller: str | ClientController,
        in_flight: int | None,
        patience: float,
        encoding: Encoding,
        name: str | None,
        priority: int | None,
        min_accuracy: float | None,
        max_energy: float | None,
    ) -> None:
        Options(stream=name, priority=priority)
        Bounds(min_accuracy=min_accuracy, max_energy=max_energy)
        self.deadline = check_cap(deadline, "deadline")
        self.period = 1.0 / check_cap(fps, "fps")
        self._patience = check_cap(patience, "patience")
        if encoding not in get_args(Encoding):
            raise InvalidInput(
                f"encoding is {encoding!r}; it must be one of {', '.join(get_args(Encoding))}",
                "encoding",
            )
        self.encoding: Encoding = encoding
        if in_flight is None:
            in_flight = min(_MOST_IN_FLIGHT, ceil(self.deadline / self.period) + 1)
        self.in_flight = check_integer(in_flight, "in_flight", 1, None)
        if isinstance(controller, str):
            controller = make_controller(controller)
        elif not all(callable(getattr(controller, call, None)) for call in ("choose", "ended")):
            raise InvalidInput(
                f"controller is {controller!r}; it must be a name or have choose() and ended()",
                "controller",
            )
        is_bounded = min_accuracy is not None or max_energy is not None
        self._request = {
            "stream": name,
            "priority": priority,
            "min_accuracy": min_accuracy,
            "max_energy": max_energy,
            "on_infeasible": "reject" if is_bounded else "best_effort",
        }
        self.state: StreamState[Any, Result] = StreamState(
            controller,
            deadline=self.deadline,
            period=self.period,
            in_flight=self.in_flight,
        )
        self._model: StreamedModel | None = None
        self._round_trip = 0.0
        self.last_error: DelenError | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the daemon has described its model."""
        return self._model is not None

    def begin(self, model: StreamedModel, round_trip: float) -> None:
        """What the daemon said, and the seconds that a small question took."""
        self._model, self._round_trip = model, round_trip

    def put(self, frame: Any) -> None:
        """A new frame, a ``Frame`` where the time of capture is known."""
        if self.state.has_ended:
            raise DelenError("this stream has ended; it takes no more frames")
        content, captured = frame, None
        if isinstance(frame, Frame):
            content, captured = frame.content, frame.captured
        self.state.put(content, time.monotonic(), captured)
        if not self.state.has_begun and self._model is not None:
            link = LinkEstimate(self._round_trip)
            self.state.begin(self._model.options(content), link, self._round_trip)

    def send(self) -> Sending[Any] | None:
        return self.state.send(time.monotonic())

    def encode(self, sending: Sending[Any]) -> Encoded:
        assert self._model is not None
        return self._model.encode(sending.content, sending.option.size)

    def arguments(self, sending: Sending[Any], encoded: Encoded) -> dict[str, Any]:
        """Of ``infer``, for a frame that is handed to the network now."""
        now = time.monotonic()
        self.state.encoded(sending.frame, now, encoded.payload, encoded.size)
        timeout = max(self._patience, sending.captured + self.deadline - now)
        bound = sending.max_latency
        if bound is not None:
            bound += sending.upload  # the daemon's time begins with the first byte
        return {**self._request, "max_latency": bound, "timeout": timeout}

    def ended(self, sending: Sending[Any], outcome: Result | list[Result] | DelenError) -> None:
        """What became of a frame that was sent. The time in which it came in belongs to the
        network, though a receipt's latency begins with the first byte."""
        now = time.monotonic()
        if isinstance(outcome, list):
            outcome = InvalidInput("a frame was a batch; it must be one sample", "frame")
        if isinstance(outcome, Result):
            latency = outcome.receipt.latency.value - (outcome.receipt.receiving or 0.0)
            return self.state.answered(sending.frame, now, latency, outcome)
        self.last_error = outcome
        cause: DropCause = "refused"
        if isinstance(outcome, DaemonUnreachable) or type(outcome) is DelenError:
            cause = "unanswered"
        elif isinstance(outcome, _WRONG):
            cause = "invalid"
        return self.state.failed(sending.frame, now, cause)

    def take(self) -> FrameResult | None:
        """The next result that can leave now."""
        found: Answered[Result] | None = self.state.take(time.monotonic())
        if found is None:
            return None
        return FrameResult(
            found.frame,
            found.captured,
            found.latency,
            found.option.size,
            found.late,
            found.answer,
        )

    def wait(self) -> float | None:
        """Seconds until a held result can leave; None where only an event can make it."""
        due = self.state.due()
        return None if due is None else max(0.0, due - time.monotonic())


class StreamCounts:
    """What ``core`` has counted."""

    def __init__(self, core: StreamCore) -> None:
        self._core = core

    @property
    def frames(self) -> int:
        """How many frames were captured."""
        return self._core.state.frames

    @property
    def dropped(self) -> Mapping[DropCause, int]:
        """How many frames have no result, by cause."""
        return self._core.state.dropped

    @property
    def pending(self) -> int:
        """How many frames wait to be sent or have no answer yet."""
        return self._core.state.pending

    @property
    def last_error(self) -> DelenError | None:
        """What was raised for the last frame that was wrong, refused or not answered."""
        return self._core.last_error
