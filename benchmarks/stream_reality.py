"""``python -m benchmarks.stream_reality [--seconds N]``: a stream over a real link, and simulated.

A camera of 30 frames a second, due after 100 ms, and a daemon with the link of Jellyfish's LTE
trace between them. ``tc`` makes the link in a network namespace of its own; where that may not be,
a proxy in user space does, and the title says so. Rates are scaled so that the largest size fits
the link at its best, and the smallest where it is worst. The simulator plays the same trace with
the same controller, with the sizes, the times at the daemon and on the way, and the bytes beside
the frames that the real run showed. It is no part of ``python -m benchmarks``: ten
minutes by hand say more than one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, data_folder, report
from benchmarks.namespace_link import BURST, namespace_problem
from benchmarks.stream_session import Outcome, Session, run_in_namespace, run_throttled
from delen.simulate.streams.bandwidth import read_bandwidth
from delen.simulate.streams.frames import Frames
from delen.simulate.streams.link import OVERHEAD, FrameDraws, Link, LinkSettings
from delen.simulate.streams.stream import Stream, StreamSettings, draw_footage
from delen.simulate.streams.streams import Streams
from policies.plugins import make_controller

FPS = 30.0
DEADLINE = 0.1
_STILL = FrameDraws(1.0, 0.0, 0.0, (1.0, 1.0))
LIMIT = 0.1
"""How far from reality the simulation may be: a share of the p95, and of all frames."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one run: the share of frames sent at each size, those without an answer in time, and the
    95th percentile of what was answered, in seconds."""

    sizes: NDArray[np.float64]
    missed: float
    p95: float

    @classmethod
    def of(cls, index: NDArray[np.int64], latency: NDArray[np.float64], sizes: int) -> Summary:
        shares = np.bincount(index[index >= 0], minlength=sizes) / max(1, len(index))
        in_time = np.nan_to_num(latency, nan=inf) <= DEADLINE
        answered = latency[~np.isnan(latency)]
        p95 = float(np.quantile(answered, 0.95)) if len(answered) else inf
        return cls(shares, float(1 - in_time.mean()), p95)


class _TokenBucket(Link):
    """A link that was idle lets a burst through at once, as tbf does."""

    def send(self, sent: float, size: float, given_up: float, draws: FrameDraws) -> float:
        rate = float(self.settings.bandwidth.at(np.array([sent]))[0])
        early = BURST / rate if rate > 0 else 0.0
        return max(sent, super().send(sent - early, size, given_up, draws))


def simulate(session: Session, real: Outcome, seed: int, in_bursts: bool) -> Frames:
    """What the simulator makes of ``session``, on the device as it showed itself."""
    settings = StreamSettings(
        "camera",
        tuple(real.options),
        session.fps,
        session.deadline,
        len(real.index),
        spread=0.0,
    )
    bandwidth = session.bandwidth()
    bandwidth = replace(bandwidth, rates=bandwidth.rates / _headers(real))
    delay = session.delay or real.round_trip / 2
    link = LinkSettings(bandwidth, delay=delay, jitter=1.0, loss=session.loss)
    kind = _TokenBucket if in_bursts else Link
    footage = draw_footage(settings, seed)
    rng = np.random.default_rng(seed)
    handled = rng.choice(_handling(real, kind(link, settings.end, seed)), len(real.index))
    draws = [
        replace(each, up=float(seconds), back=0.0)
        for each, seconds in zip(footage.draws, handled, strict=True)
    ]
    controller = make_controller(session.controller)
    stream = Stream(
        settings, controller, kind(link, settings.end, seed), replace(footage, draws=draws)
    )
    return _play(stream, [_served(real, index) for index in range(len(real.options))], seed)


def _headers(real: Outcome) -> float:
    """How many bytes went through the link for each that the simulator counts."""
    sent = real.index[real.index >= 0]
    counted = sum(real.options[index].payload + OVERHEAD for index in sent)
    return real.passed / counted if counted else 1.0


def _handling(real: Outcome, link: Link) -> NDArray[np.float64]:
    """Seconds of each frame's way that ``link`` does not explain: what client and daemon did with
    it beside running it, on a machine that has other work as well."""
    order = np.argsort(real.sent)
    seconds = []
    for frame in order[~np.isnan(real.sent[order])]:
        sent = float(real.sent[frame])
        payload = real.options[real.index[frame]].payload
        explained = link.send(sent, payload, inf, _STILL) - sent + link.back(_STILL)
        if not np.isnan(real.network[frame]):
            seconds.append(max(0.0, float(real.network[frame]) - explained))
    return np.array(seconds)


def _served(real: Outcome, index: int) -> NDArray[np.float64]:
    """The times at the daemon of frames of an option; of all where it was never sent."""
    served = real.served[(real.index == index) & ~np.isnan(real.served)]
    return served if len(served) else real.served[~np.isnan(real.served)]


def _play(stream: Stream, served: Sequence[NDArray[np.float64]], seed: int) -> Frames:
    """``stream`` with a daemon where a frame is for one of the times ``served`` of its option,
    which have its waiting in them."""
    rng = np.random.default_rng(seed)
    events = Streams([stream])
    while events.next_at < inf:
        if (arrived := events.take()) is not None:
            leaves = arrived.at + float(rng.choice(served[arrived.index]))
            events.answer(arrived, leaves, stream.settings.options[arrived.index].accuracy)
    return stream.frames()


def compare(real: Summary, simulated: Summary) -> list[Figure]:
    """How far the simulation is from reality."""
    apart = float(np.abs(real.sizes - simulated.sizes).max())
    missed = abs(real.missed - simulated.missed)
    p95 = abs(simulated.p95 - real.p95) / real.p95
    return [
        Figure("sizes chosen, share of frames off by at most", (apart,), "", LIMIT),
        Figure("missed frames, share off by", (missed,), "", LIMIT),
        Figure("p95, off by", (p95,), "", LIMIT),
    ]


def scale_for(trace: Path, payload: float) -> float:
    """By what to scale ``trace`` so that its 80th percentile is what frames of ``payload`` need."""
    rates = read_bandwidth(trace).rates
    return float(FPS * (payload + OVERHEAD) / np.quantile(rates, 0.8))


def judge(session: Session) -> list[Figure]:
    """Play ``session`` for real and simulated, and print both."""
    problem = namespace_problem(session.delay, session.loss)
    real = run_in_namespace(session) if problem is None else run_throttled(session)
    played = simulate(session, real, seed=0, in_bursts=problem is None)
    sizes = len(real.options)
    pair = {
        "real": Summary.of(real.index, real.latency, sizes),
        "simulated": Summary.of(played.index.astype(int), played.latency, sizes),
    }
    for name, summary in pair.items():
        shares = ", ".join(
            f"{option.size and option.size[0]}: {share:.3f}"
            for option, share in zip(real.options, summary.sizes, strict=True)
        )
        missed, p95 = f"missed {summary.missed:.3f}", f"p95 {1e3 * summary.p95:.1f} ms"
        print(f"{name:<10} sizes {shares}; {missed}; {p95}")
    print(f"dropped for real {real.dropped}, simulated {dict(played.dropped)}")
    way = "a link of tc" if problem is None else f"a link in user space ({problem})"
    return report(f"Simulation against {way}", compare(pair["real"], pair["simulated"]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream_reality")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N")
    parser.add_argument("--controller", default="expected", metavar="NAME")
    parser.add_argument("--models", metavar="FOLDER", help="bundles, beside the shipped ones")
    parser.add_argument("--model", default="cifar10-resnet", metavar="NAME")
    parser.add_argument("--payload", type=float, default=3072, metavar="BYTES", help="of a frame")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="each way")
    parser.add_argument("--loss", type=float, default=0.0, metavar="SHARE", help="of packets")
    options = parser.parse_args()
    trace = data_folder() / "traces" / "jellyfish_lte_upload_trace.txt"
    with tempfile.TemporaryDirectory() as state:
        session = Session(
            trace=str(trace),
            scale=scale_for(trace, options.payload),
            seconds=options.seconds,
            state=state,
            model=options.model,
            models=options.models,
            controller=options.controller,
            fps=FPS,
            deadline=DEADLINE,
            delay=options.delay,
            loss=options.loss,
        )
        figures = judge(session)
    return int(any(figure.holds is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
