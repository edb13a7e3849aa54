"""``delen.Stream``: frames in, results in order of capture, with threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from delen.errors import DelenError
from delen.sdk.client import Client
from delen.streams.core import PATIENCE, StreamCore, StreamCounts, check_given
from delen.streams.frames import Frame, FrameResult
from delen.streams.model import Encoding, StreamedModel
from policies.client.api import ClientController


class Stream(StreamCounts):
    """Sends frames to a daemon as large and as often as the deadline allows.

    ``frames`` are taken from an iterator, at most ``fps`` a second; those of ``delen.streams``'
    sources know when they were captured, and are taken as they come. Without it ``put`` gives the
    frames and ``end`` says that there are no more. Iterating gives a ``FrameResult`` for each frame
    that was answered, in order of capture; ``dropped`` counts the others by cause.

    ``deadline`` is in seconds from capture to answer. ``controller`` decides for each frame whether
    it is sent, how large and how deep: a name or a ``ClientController``. At most ``in_flight``
    frames are under way, by default those of one deadline and another one. An answer is given up
    ``patience`` seconds after its frame was sent, and not before its deadline. ``encoding`` is
    ``raw``, ``jpeg`` or ``auto``: JPEG where a large frame leaves this machine. ``name``,
    ``priority``, ``min_accuracy`` and ``max_energy`` go with every request; a frame that cannot
    keep the latter two in the time that the controller leaves it is refused.

    A wrong or refused frame ends nothing: it is counted, and ``last_error`` is what was raised.
    What the source raises, iterating raises, after the results before it.
    """

    def __init__(
        self,
        client: Client,
        frames: Iterable[Any] | None = None,
        *,
        deadline: float = 0.1,
        fps: float = 30.0,
        controller: str | ClientController = "expected",
        in_flight: int | None = None,
        patience: float = PATIENCE,
        encoding: Encoding = "auto",
        name: str | None = None,
        priority: int | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
    ) -> None:
        check_given(client, Client, frames, (Iterable,))
        self._client = client
        self._frames = frames
        super().__init__(
            StreamCore(
                deadline=deadline,
                fps=fps,
                controller=controller,
                in_flight=in_flight,
                patience=patience,
                encoding=encoding,
                name=name,
                priority=priority,
                min_accuracy=min_accuracy,
                max_energy=max_energy,
            )
        )
        self._changed = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._is_closed = False

    def put(self, frame: Any) -> None:
        """A new frame, which must not change afterwards. It never waits."""
        if self._frames is not None:
            raise DelenError("this stream takes its frames from its iterator, not by put()")
        self._start()
        with self._changed:
            self._core.put(frame)
            self._changed.notify_all()

    def end(self) -> None:
        """No more frames come. Iterating ends after the last result."""
        with self._changed:
            self._core.state.end()
            self._changed.notify_all()

    def ready(self) -> list[FrameResult]:
        """The results that can leave now, without waiting."""
        with self._changed:
            results = []
            while (result := self._core.take()) is not None:
                results.append(result)
            return results

    def close(self) -> None:
        """Send nothing more, and wait for what is under way."""
        with self._changed:
            self._is_closed = True
            self._core.state.end()
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> FrameResult:
        self._start()
        with self._changed:
            while True:
                if (result := self._core.take()) is not None:
                    self._changed.notify_all()
                    return result
                if self._is_closed or self._core.state.is_finished:
                    if (failure := self._failure) is not None:
                        self._failure = None
                        raise failure
                    raise StopIteration
                self._changed.wait(self._core.wait())

    def __enter__(self) -> Stream:
        if self._is_closed or self._core.state.is_finished:
            raise DelenError("this stream has ended; make another one")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._workers or self._is_closed:
            return
        core, client = self._core, self._client
        preview = client.plan()
        began = time.monotonic()
        models = client.models()
        round_trip = time.monotonic() - began
        with self._changed:
            if self._workers:
                return
            core.begin(StreamedModel.of(models, preview, client.url, core.encoding), round_trip)
            for number in range(core.in_flight):
                name = f"delen-stream-{number}"
                worker = threading.Thread(target=self._work, name=name, daemon=True)
                worker.start()
                self._workers.append(worker)
        if self._frames is not None:
            threading.Thread(
                target=self._read, args=(self._frames,), name="delen-source", daemon=True
            ).start()

    def _read(self, frames: Iterable[Any]) -> None:
        """Take what the source gives, as long as anybody wants it."""
        try:
            due = time.monotonic()
            for frame in frames:
                if not isinstance(frame, Frame) and not self._pause_until(due):
                    return
                with self._changed:
                    if self._core.state.has_ended:
                        return
                    self._core.put(frame)
                    self._changed.notify_all()
                due = max(due, time.monotonic() - self._core.period) + self._core.period
            self.end()
        except BaseException as error:
            self._fail(error, at_once=False)

    def _pause_until(self, due: float) -> bool:
        """Wait; whether the stream still goes on."""
        with self._changed:
            while not self._core.state.has_ended and (left := due - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._core.state.has_ended

    def _work(self) -> None:
        """Send one frame after another."""
        try:
            while (sending := self._next()) is not None:
                self._exchange(sending)
        except BaseException as error:
            self._fail(error, at_once=True)

    def _next(self) -> Any:
        with self._changed:
            while not self._is_closed:
                if (sending := self._core.send()) is not None:
                    return sending
                if self._core.state.is_drained:
                    self._changed.notify_all()
                    return None
                self._changed.wait()
            return None

    def _exchange(self, sending: Any) -> None:
        core = self._core
        outcome: Any
        try:
            encoded = core.encode(sending)
            with self._changed:
                arguments = core.arguments(sending, encoded)
            outcome = self._client.infer(encoded.content, **arguments)
        except DelenError as error:
            outcome = error
        with self._changed:
            core.ended(sending, outcome)
            self._changed.notify_all()

    def _fail(self, error: BaseException, at_once: bool) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._is_closed = self._is_closed or at_once
            self._core.state.end()
            self._changed.notify_all()
