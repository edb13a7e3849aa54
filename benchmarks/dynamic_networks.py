"""One multi-exit network beside a family of separate networks with the same accuracies.

The family is made of the shipped bundle: for each exit its trunk and head as one graph, without the
other heads, so that member k answers as exit k does. Measured on one core, in turns, in processor
time: what both take to load (a session opened from its file, and its first run) and to run. Their
memory is that of their graphs.

From these times a queue of requests with deadlines is simulated, which a device serves one batch
after the other: Poisson arrivals, a deadline of five times what the last member takes, samples of
the calibration table. An answer in time counts if it is right.

- ``slackfit`` (SuperServe's rule) chooses exit or member and batch by the slack of the first in the
  queue, for requests that leave the quality to it. What not even the first would answer in time is
  refused: the rule alone serves late requests one by one.
- ``clockwork``: every request names its quality, one of the exits, drawn uniformly. What would be
  late is refused; the first by deadline runs with all that keep their deadlines beside it. Exits
  share segments whatever the quality; of a family only those of one member run together.

Four are compared:

- the *exits*, each request run to the one chosen for it;
- the *confident exits*: a request leaves before where it is sure enough, by the threshold at which
  at most 1 % of answers differ. Rules still reckon with the whole way;
- the *family*, all of it in memory;
- the *family in the same memory* as the exits take, which begins with the deepest members that this
  holds. One that is away is loaded where the rule's prediction, which includes that, allows it, or,
  under ``clockwork``, when it is asked for in vain. The one used longest ago leaves. A load keeps
  the device busy.

Loads are of what the device runs a second of the last member, one at a time; the third is more than
any of them can serve at their best. Batches hardly pay on this machine; on the second device, which
is assumed, each sample more takes a tenth of one alone.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import onnxruntime as ort

from benchmarks.chain import plain_classifier
from benchmarks.common import Figure, report
from delen.bundle.calibration import Calibration
from delen.bundle.manifest import Bundle, load_bundle
from delen.core.dispatch import ModelView
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.onnx import OnnxBackend
from policies.dispatch.published.slackfit import SlackFit
from policies.plan.thresholds import agreement_threshold

BATCHES = (1, 2, 4, 8, 16)
ROUNDS = 15
OPENINGS = 5
SEEDS = range(5)
REQUESTS = 4000
DEADLINE = 5.0
"""Times of the last member."""
TOLERANCE, LEVEL = 0.01, 0.95
EXITS, CONFIDENT = "exits", "confident exits"
FAMILY, SAME_MEMORY = "family", "family in the same memory"
HERE, BATCHES_PAY = "this machine", "batches pay"
EACH_MORE = 0.1
LOADS = {HERE: (0.6, 1.2, 2.4), BATCHES_PAY: (3.0, 6.0, 12.0)}
MOST_MEMORY = 0.8


@dataclass(frozen=True)
class Measured:
    """Seconds ``[exit][batch size]`` of segments and members, of loading each member, and bytes of
    the graphs of all segments and of each member."""

    segments: Sequence[Sequence[float]]
    members: Sequence[Sequence[float]]
    loading: Sequence[float]
    segment_bytes: Sequence[int]
    member_bytes: Sequence[int]


def measure(bundle: Bundle) -> Measured:
    exits, rng = len(bundle.exits), np.random.default_rng(0)
    network = OnnxBackend("cpu", 1).load(bundle)
    batches = [
        rng.integers(0, 256, (batch, *bundle.manifest.input.shape), np.uint8) for batch in BATCHES
    ]
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{exit}.onnx" for exit in range(exits)]
        for exit, file in enumerate(files):
            file.write_bytes(plain_classifier(bundle, exit).SerializeToString())
        sizes = [file.stat().st_size for file in files]
        loading = [_loading(file, batches[0]) for file in files]
        sessions = [_open(file) for file in files]
    members = [[0.0] * len(BATCHES) for _ in range(exits)]
    segments = [[0.0] * len(BATCHES) for _ in range(exits)]
    for size, images in enumerate(batches):
        taken: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS + 1):  # the first is a warm-up
            features: Any = list(images)
            for exit in range(exits):
                began = time.process_time()
                run = network.run(exit, features)
                taken.setdefault(("segment", exit), []).append(time.process_time() - began)
                features = list(run.features)
                began = time.process_time()
                sessions[exit].run(None, {"s0_input": np.stack(list(images))})
                taken.setdefault(("member", exit), []).append(time.process_time() - began)
        for exit in range(exits):
            segments[exit][size] = float(np.median(taken["segment", exit][1:]))
            members[exit][size] = float(np.median(taken["member", exit][1:]))
    graphs = [len(bundle.graph(exit)) for exit in range(exits)]
    return Measured(segments, members, loading, graphs, sizes)


def _open(file: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _loading(file: Path, images: Any) -> float:
    """Seconds until the graph in ``file`` has answered for the first time, at the median."""
    taken = []
    for _ in range(OPENINGS):
        began = time.process_time()
        _open(file).run(None, {"s0_input": images})
        taken.append(time.process_time() - began)
    return float(np.median(taken))


class Networks(Protocol):
    """``answers``: seconds until each of a batch that runs to these exits or members is answered.
    ``ends``: where a sample ends that was to run to one. ``together``: whether samples of two of
    them may run as one batch. ``loading``: seconds until one of them is in memory, which ``load``
    brings about."""

    def answers(self, wanted: Sequence[int]) -> Sequence[float]: ...
    def ends(self, wanted: int, sample: int) -> int: ...
    def together(self, one: int, other: int) -> bool: ...
    def loading(self, which: int) -> float: ...
    def load(self, which: int) -> None: ...


@dataclass
class Exits:
    """All segments are in memory; who has left takes no part in later ones. ``taken[exit][sample]``
    is where a sample ends on its way to ``exit``."""

    times: Measured
    taken: Sequence[Sequence[int]]

    def answers(self, wanted: Sequence[int]) -> Sequence[float]:
        counts = [sum(each >= exit for each in wanted) for exit in range(max(wanted) + 1)]
        pairs = zip(self.times.segments, counts, strict=False)
        reached = list(accumulate(_at(segment, count) for segment, count in pairs))
        return [reached[exit] for exit in wanted]

    def ends(self, wanted: int, sample: int) -> int:
        return self.taken[wanted][sample]

    def together(self, one: int, other: int) -> bool:
        return True

    def loading(self, which: int) -> float:
        return 0.0

    def load(self, which: int) -> None:
        """It is there."""


@dataclass
class Family:
    """Separate networks in ``memory`` bytes, the one used longest ago first in ``loaded``."""

    times: Measured
    memory: int
    loaded: list[int] = field(default_factory=list)

    def answers(self, wanted: Sequence[int]) -> Sequence[float]:
        return [_at(self.times.members[wanted[0]], len(wanted))] * len(wanted)

    def ends(self, wanted: int, sample: int) -> int:
        return wanted

    def together(self, one: int, other: int) -> bool:
        return one == other

    def loading(self, which: int) -> float:
        return 0.0 if which in self.loaded else self.times.loading[which]

    def load(self, which: int) -> None:
        sizes = self.times.member_bytes
        if which in self.loaded:
            self.loaded.remove(which)
        while self.loaded and sum(sizes[each] for each in (*self.loaded, which)) > self.memory:
            self.loaded.pop(0)
        self.loaded.append(which)


def deepest_in(measured: Measured, memory: int) -> list[int]:
    """The members that fit in ``memory`` if the deepest are taken first, the shallowest first."""
    chosen: list[int] = []
    for member in reversed(range(len(measured.members))):
        if sum(measured.member_bytes[each] for each in (*chosen, member)) <= memory:
            chosen.insert(0, member)
    return chosen


def _at(times: Sequence[float], batch: int) -> float:
    return float(np.interp(batch, BATCHES, times))


class Request(NamedTuple):
    """It wants ``quality``, an exit; None leaves that to the rule."""

    deadline: float
    number: int
    quality: int | None


class Turn(NamedTuple):
    """The first ``run`` of the queue's requests, to these exits; those refused; what to load."""

    run: Sequence[Request] = ()
    exits: Sequence[int] = ()
    refuse: Sequence[Request] = ()
    load: int | None = None


Rule = Callable[[float, Sequence[Request], Networks, int], Turn]


@dataclass(frozen=True)
class _View:
    """The ModelView of one quality, as far as ``slackfit`` looks."""

    networks: Networks
    max_batch: int = BATCHES[-1]

    def latency_upper(self, first: int, last: int, batch: int) -> float:
        return self.networks.loading(last) + self.networks.answers([last] * batch)[0]


def slackfit(now: float, queue: Sequence[Request], networks: Networks, last: int) -> Turn:
    at_least = now + networks.answers([0])[0]
    late = [request for request in queue if request.deadline < at_least]
    if late:
        return Turn(refuse=late)
    view = cast(ModelView, _View(networks))
    exit, batch = SlackFit.fit(queue[0].deadline - now, last, len(queue), view)
    return Turn(queue[:batch], [exit] * batch)


def clockwork(now: float, queue: Sequence[Request], networks: Networks, last: int) -> Turn:
    lead, *others = queue
    quality = cast(int, lead.quality)
    began, alone = now + networks.loading(quality), networks.answers([quality])[0]
    if began + alone > lead.deadline:
        is_away = now + alone <= lead.deadline
        return Turn(refuse=[lead], load=quality if is_away else None)
    run, exits = [lead], [quality]
    for mate in others:
        wanted = cast(int, mate.quality)
        if len(run) == BATCHES[-1]:
            break
        if not networks.together(quality, wanted):
            continue
        batch, after = [*run, mate], networks.answers([*exits, wanted])
        if any(began + s > each.deadline for each, s in zip(batch, after, strict=True)):
            break
        run.append(mate)
        exits.append(wanted)
    return Turn(run, exits)


RULES: dict[str, tuple[Rule, bool]] = {
    "slackfit": (slackfit, False),
    "clockwork": (clockwork, True),
}
"""Each rule, and whether requests name their quality."""


@dataclass(frozen=True)
class Outcome:
    """``effective``: the part of all requests answered rightly in time; the mean ``batch``; the
    part of the time spent ``loading``."""

    effective: float
    batch: float
    loading: float


def play(
    networks: Networks, rule: str, table: Calibration, load: float, last_seconds: float, seed: int
) -> Outcome:
    """The same requests for every kind of ``networks``."""
    choose, is_named = RULES[rule]
    rng, last = np.random.default_rng(seed), table.exits - 1
    times = np.cumsum(rng.exponential(last_seconds / load, REQUESTS)).tolist()
    samples = rng.integers(table.samples, size=REQUESTS).tolist()
    qualities = rng.integers(table.exits, size=REQUESTS).tolist()
    queue: list[Request] = []
    loads: list[float] = []

    def have(which: int) -> float:
        """Seconds until it is in memory."""
        loads.append(networks.loading(which))
        networks.load(which)
        return loads[-1]

    now = 0.0
    right = batches = ran = arrived = 0
    while arrived < REQUESTS or queue:
        if not queue:
            now = max(now, times[arrived])
        while arrived < REQUESTS and times[arrived] <= now:
            quality = qualities[arrived] if is_named else None
            insort(queue, Request(times[arrived] + DEADLINE * last_seconds, arrived, quality))
            arrived += 1
        turn = choose(now, queue, networks, last)
        for request in (*turn.run, *turn.refuse):
            queue.remove(request)
        if turn.run:
            now += have(turn.exits[0])
            about = [samples[request.number] for request in turn.run]
            pairs = zip(turn.exits, about, strict=True)
            exits = [networks.ends(exit, sample) for exit, sample in pairs]
            after = networks.answers(exits)
            for request, sample, exit, seconds in zip(turn.run, about, exits, after, strict=True):
                in_time = now + seconds <= request.deadline
                right += in_time and bool(table.correct[sample, exit])
            now, batches, ran = now + max(after), batches + 1, ran + len(turn.run)
        if turn.load is not None:
            now += have(turn.load)
    return Outcome(right / REQUESTS, ran / max(1, batches), sum(loads) / now)


def sizes(measured: Measured) -> list[Figure]:
    """Memory, the time of a switch, and what the other heads cost a run."""
    ours, theirs = sum(measured.segment_bytes), sum(measured.member_bytes)
    switches = tuple(1e3 * seconds for seconds in measured.loading)
    made = [
        Figure("memory of the exits, of the family's", (ours / theirs,), "x", MOST_MEMORY),
        Figure("switch to a member that is away", switches, "ms"),
        Figure("switch to another exit", (0.0,), "ms"),
    ]
    for exit, member in enumerate(measured.members):
        chain = [sum(s[size] for s in measured.segments[: exit + 1]) for size in range(len(member))]
        ratios = tuple(each / alone for each, alone in zip(chain, member, strict=True))
        made.append(Figure(f"run to exit {exit}, of member {exit}, all batches", ratios, "x"))
    return made


def where_batches_pay(measured: Measured) -> Measured:
    """The same times of one sample; each more takes EACH_MORE of it."""

    def batched(times: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
        return [[one * (1 + EACH_MORE * (size - 1)) for size in BATCHES] for one, *_ in times]

    return replace(measured, segments=batched(measured.segments), members=batched(measured.members))


def confident(table: Calibration, exit: int) -> Sequence[int]:
    """Where each sample ends that leaves before ``exit`` where it is confident."""
    found = agreement_threshold(table, exit, TOLERANCE, LEVEL)
    whole: list[int] = [exit] * table.samples
    return whole if found is None else table.exits_taken(found.value, exit).tolist()


def queues(device: str, measured: Measured, table: Calibration) -> list[Figure]:
    """Effective accuracy of all, rule by rule, as the load doubles and doubles again."""
    ours, theirs = sum(measured.segment_bytes), sum(measured.member_bytes)
    last_seconds = measured.members[-1][0]
    whole = [[exit] * table.samples for exit in range(table.exits)]
    early = [confident(table, exit) for exit in range(table.exits)]
    kinds: dict[str, Callable[[], Networks]] = {
        EXITS: lambda: Exits(measured, whole),
        CONFIDENT: lambda: Exits(measured, early),
        FAMILY: lambda: Family(measured, theirs, list(range(table.exits))),
        SAME_MEMORY: lambda: Family(measured, ours, deepest_in(measured, ours)),
    }
    made = []
    for rule, load in product(RULES, LOADS[device]):
        done = {
            kind: [play(make(), rule, table, load, last_seconds, seed) for seed in SEEDS]
            for kind, make in kinds.items()
        }
        for kind, outcomes in done.items():
            name = f"{device}, {rule} {load:g}, {kind}"
            effective = tuple(each.effective for each in outcomes)
            made.append(Figure(f"{name}: effective accuracy", effective, ""))
            made.append(Figure(f"{name}: batch", tuple(each.batch for each in outcomes), ""))
            if kind == SAME_MEMORY:
                loading = tuple(each.loading for each in outcomes)
                made.append(Figure(f"{name}: time spent loading", loading, ""))
        for kind in (FAMILY, SAME_MEMORY):
            pairs = zip(done[CONFIDENT], done[kind], strict=True)
            gained = tuple(100 * (each.effective - other.effective) for each, other in pairs)
            is_claimed = kind == SAME_MEMORY and load <= LOADS[device][1]
            limit = 0.0 if is_claimed else None
            made.append(
                Figure(
                    f"{device}, {rule} {load:g}: gained on {kind}", gained, "points", limit, False
                )
            )
    return made


def main() -> list[Figure]:
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    measured, table = measure(bundle), bundle.calibration
    made = report("What both take", sizes(measured))
    for device, times in ((HERE, measured), (BATCHES_PAY, where_batches_pay(measured))):
        title = f"{device}: queues of {REQUESTS} requests, {len(SEEDS)} seeds"
        made += report(title, queues(device, times, table))
    return made


if __name__ == "__main__":
    main()
