"""One stream over a real link: its daemon, its link and what became of its frames.

As a program it is the process in namespaces of its own: it reads a session from standard input and
writes what became of it, both as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import delen
from benchmarks.namespace_link import ENTER, NamespaceLink
from benchmarks.throttle import ThrottledLink
from delen.simulate.streams.bandwidth import Bandwidth, read_bandwidth
from policies.client.api import ClientController, FrameChoice, FrameOption, FrameReport, StreamView
from policies.plugins import make_controller

_PORT = 8000
_STEP = 0.25
"""Seconds after which the rate follows the trace."""
_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Session:
    """A stream of ``seconds`` to ``model`` over a link whose rate is ``scale`` times ``trace``'s.

    ``models`` and ``state`` are folders of the daemon; without ``models`` it has the shipped ones.
    """

    trace: str
    scale: float
    seconds: float
    state: str
    model: str = "cifar10-resnet"
    models: str | None = None
    controller: str = "expected"
    fps: float = 30.0
    deadline: float = 0.1
    delay: float = 0.0
    loss: float = 0.0

    def bandwidth(self) -> Bandwidth:
        """The rate of the link."""
        whole = read_bandwidth(self.trace)
        return replace(whole, rates=self.scale * whole.rates)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stream. Rows are frames: ``index`` is the option that was sent (-1: none),
    ``latency`` the seconds to its answer (NaN: none), ``served`` those of them at the daemon and
    ``network`` those on the way; it was ``sent`` so many seconds after the trace began. ``passed``
    bytes went through the link."""

    options: Sequence[FrameOption]
    round_trip: float
    index: NDArray[np.int64]
    latency: NDArray[np.float64]
    served: NDArray[np.float64]
    network: NDArray[np.float64]
    sent: NDArray[np.float64]
    dropped: dict[str, int]
    passed: int

    def to_json(self) -> str:
        return json.dumps(
            {
                "options": [asdict(option) for option in self.options],
                "round_trip": self.round_trip,
                "index": self.index.tolist(),
                "latency": self.latency.tolist(),
                "served": self.served.tolist(),
                "network": self.network.tolist(),
                "sent": self.sent.tolist(),
                "dropped": self.dropped,
                "passed": self.passed,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        found = json.loads(text)
        options = [
            FrameOption(**{**each, "size": each["size"] and tuple(each["size"])})
            for each in found["options"]
        ]
        return cls(
            options,
            found["round_trip"],
            np.array(found["index"], int),
            np.array(found["latency"], float),
            np.array(found["served"], float),
            np.array(found["network"], float),
            np.array(found["sent"], float),
            found["dropped"],
            found["passed"],
        )


class _Recorder:
    """A controller, and what it saw and chose."""

    def __init__(self, controller: ClientController) -> None:
        self.name = controller.name
        self.choices: dict[int, int] = {}
        self.latency: dict[int, float] = {}
        self.served: dict[int, float] = {}
        self.network: dict[int, float] = {}
        self.sent: dict[int, float] = {}
        self.options: Sequence[FrameOption] = ()
        self.round_trip = 0.0
        self._controller = controller

    def choose(self, view: StreamView) -> FrameChoice | None:
        self.options, self.round_trip = view.options, view.round_trip
        choice = self._controller.choose(view)
        if choice is not None:
            self.choices[view.frame] = choice.index
        return choice

    def ended(self, report: FrameReport) -> None:
        self.sent[report.frame] = report.sent
        for times, seconds in (
            (self.latency, report.end_to_end),
            (self.served, report.latency),
            (self.network, report.network),
        ):
            if seconds is not None:
                times[report.frame] = seconds
        self._controller.ended(report)


def run_in_namespace(session: Session) -> Outcome:
    """``session`` over a link of ``tc``. RuntimeError with what the process wrote if it failed."""
    done = subprocess.run(
        [*ENTER, sys.executable, "-m", __name__],
        input=json.dumps(asdict(session)),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Outcome.from_json(done.stdout.splitlines()[-1])


def run_throttled(session: Session) -> Outcome:
    """``session`` over a link in user space."""
    with ExitStack() as stack:
        process = subprocess.Popen(_daemon_command(), env=_environment(session, "127.0.0.1"))
        stack.callback(_stop, process)
        link = ThrottledLink("127.0.0.1", _PORT, delay=session.delay, loss=session.loss)
        stack.enter_context(link)
        return _play(session, link.url, session.bandwidth(), link.set_rate, link.passed)


def _inside(session: Session) -> Outcome:
    """``session`` in a process of ``ENTER``."""
    with ExitStack() as stack:
        link = stack.enter_context(NamespaceLink(session.delay, session.loss))
        environment = _environment(session, link.far)
        stack.callback(_stop, link.start(*_daemon_command(), **environment))
        url = f"http://{link.far}:{_PORT}"
        return _play(session, url, session.bandwidth(), link.set_rate, link.passed)


def _play(
    session: Session,
    url: str,
    bandwidth: Bandwidth,
    set_rate: Callable[[float], None],
    passed: Callable[[], int],
) -> Outcome:
    """The stream, while the rate of its link follows ``bandwidth``."""
    recorder = _Recorder(make_controller(session.controller))
    with delen.Client(url, model=session.model, timeout=_START_SECONDS) as client:
        sample = _wait_ready(client)
        before = passed()
        frames = _frames(sample, round(session.seconds * session.fps))
        with (
            delen.Stream(
                client,
                iter(frames),
                deadline=session.deadline,
                fps=session.fps,
                controller=recorder,
                encoding="raw",
            ) as stream,
            _following(bandwidth, set_rate) as began,
        ):
            for _ in stream:
                pass
            dropped = {cause: count for cause, count in stream.dropped.items() if count}
            count = stream.frames

    def row(of: dict[int, float]) -> NDArray[np.float64]:
        return np.array([of.get(frame, np.nan) for frame in range(count)])

    return Outcome(
        recorder.options,
        recorder.round_trip,
        np.array([recorder.choices.get(frame, -1) for frame in range(count)]),
        row(recorder.latency),
        row(recorder.served),
        row(recorder.network),
        row(recorder.sent) - began,
        dropped,
        passed() - before,
    )


@contextmanager
def _following(bandwidth: Bandwidth, set_rate: Callable[[float], None]) -> Iterator[float]:
    """Set the rate again and again; when the trace began."""
    ends, began = threading.Event(), time.monotonic()

    def follow() -> None:
        before = None
        while True:
            now = np.array([time.monotonic() - began])
            if (rate := 8 * float(bandwidth.at(now)[0])) != before:
                set_rate(rate)
                before = rate
            if ends.wait(_STEP - now[0] % _STEP):
                return

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield began
    finally:
        ends.set()
        thread.join()
        set_rate(1e9)


def _wait_ready(client: delen.Client) -> tuple[int, ...]:
    """Wait for the daemon; the shape of the model's input."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            name = client.plan().model
            described = next(model for model in client.models() if model["name"] == name)
            if described["profile"]["rough"]:
                raise delen.Overloaded("no profile is measured yet", retry_after=1.0)
            return tuple(described["input"]["shape"])
        except (delen.DaemonUnreachable, delen.Overloaded):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _frames(shape: tuple[int, ...], count: int) -> list[NDArray[np.uint8]]:
    """Frames of noise: what is in them does not matter to the link."""
    rng = np.random.default_rng(0)
    some = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(50)]
    return [some[number % len(some)] for number in range(count)]


def _daemon_command() -> list[str]:
    return [str(Path(sys.executable).with_name("delen-daemon"))]


def _environment(session: Session, host: str) -> dict[str, str]:
    named = {
        "DELEN_SERVER__HOST": host,
        "DELEN_SERVER__INSECURE": "true",
        "DELEN_SERVER__PORT": str(_PORT),
        "DELEN_SERVER__SOCKET": "",
        "DELEN_SERVER__GRPC_PORT": "-1",
        "DELEN_STATE__PATH": session.state,
        "DELEN_MODELS__LOAD": session.model,
    }
    if session.models is not None:
        named["DELEN_MODELS__PATH"] = session.models
    return {**os.environ, **named}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


if __name__ == "__main__":
    given: dict[str, Any] = json.load(sys.stdin)
    print(_inside(Session(**given)).to_json())
