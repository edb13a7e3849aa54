"""A job that begins on one node and goes on on another: two engines with the same bundle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.features import decode
from delen.core.bounds import Bounds, Encoding, Options
from delen.core.handover import Part, Past, Way
from delen.core.plan import Plan
from delen.core.result import Result
from delen.engine.handover import features_shape
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.peers import Peers, PlansWithPeers
from delen.engine.runtime import Runtime
from delen.errors import (
    BundlesDiffer,
    DaemonUnreachable,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    Overloaded,
)
from delen.profile.cost_model import CostModel
from delen.scheduler.plan_cache import Plans
from policies.dispatch.published.edf import Edf
from policies.fleet.api import Ceiling, Directive
from tests.builders.engine import PATIENCE, Recorder, build_model, build_runtime

pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

SECONDS, JOULES = 100.0, 0.04
DEEPEST = Bounds(max_energy=1.0)
NO_TIME = Bounds(max_latency=0.5 * SECONDS)
ALL = Options(probabilities=True)


class Site:
    """A board and a server, which takes a thousandth of the time and twice the joules, or a tenth
    of them where it is one of the board's ``peers``."""

    def __init__(
        self, bundle: Path, make_costs: Callable[..., CostModel], peers: Peers | None = None
    ) -> None:
        self.seen = Recorder()

        def open_node(
            name: str, seconds: float, joules: float, peers: Peers | None = None
        ) -> Runtime:
            costs = make_costs(*[1e3 * seconds] * 3, energy=(joules,) * 3, growth=0.0)
            return build_runtime(
                [bundle],
                lambda path: build_model(path, costs),
                observer=self.seen,
                dispatch=Edf(),
                node=name,
                peers=peers,
            )

        self.board = open_node("board", SECONDS, JOULES, peers)
        joules = 2 * JOULES if peers is None else JOULES / 10
        self.server = open_node("server", SECONDS / 1e3, joules)

    def begin(
        self,
        image: NDArray[np.uint8],
        exit: int,
        bounds: Bounds = DEEPEST,
        encoding: Encoding = "fp32",
    ) -> Result:
        options = Options(suspend_at=exit, encoding=encoding, probabilities=True)
        return self.board.submit("tiny", image, bounds, options).future.result(PATIENCE)

    def past(self, begun: Result) -> tuple[NDArray[np.float32], Past]:
        given = begun.suspended
        assert given is not None
        manifest = self.server.manifest_of("tiny")
        shape = features_shape(manifest, given.exit, given.size)
        features = decode(given.features, shape, given.encoding)
        past = Past(
            exit=given.exit,
            bundle=given.bundle,
            size=given.size,
            threshold=given.threshold,
            confidence=given.confidence,
            parts=begun.receipt.parts,
        )
        return features, past

    def go_on(self, begun: Result, bounds: Bounds = DEEPEST) -> Result:
        features, past = self.past(begun)
        return self.server.resume("tiny", features, past, bounds, ALL).future.result(PATIENCE)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (64, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def site(either_bundle: Path, make_costs: Callable[..., CostModel]) -> Iterator[Site]:
    site = Site(either_bundle, make_costs)
    yield site
    for runtime in (site.board, site.server):
        runtime.close()


@pytest.mark.parametrize("exit", [0, 1])
def test_the_answer_of_two_nodes_is_that_of_one(
    site: Site, images: NDArray[np.uint8], exit: int
) -> None:
    whole = site.board.submit("tiny", images[0], DEEPEST, ALL)
    alone = whole.future.result(PATIENCE)
    begun = site.begin(images[0], exit)
    assert (begun.exit, begun.reason) == (exit, "suspended")
    answer = site.go_on(begun)
    assert (answer.exit, answer.reason) == (alone.exit, alone.reason) == (2, "final")
    np.testing.assert_array_equal(answer.probabilities, alone.probabilities)


def test_one_receipt_covers_both_parts_and_the_link(site: Site, images: NDArray[np.uint8]) -> None:
    begun = site.begin(images[1], 0)
    (first,) = begun.receipt.parts
    assert (first.node, first.exits) == ("board", (0,))
    assert first.energy == pytest.approx(JOULES)
    link = Part("link", (), 0.25, None)
    begun = replace(begun, receipt=replace(begun.receipt, parts=(first, link)))
    receipt = site.go_on(begun).receipt
    assert [(part.node, part.exits) for part in receipt.parts] == [
        ("board", (0,)),
        ("link", ()),
        ("server", (1, 2)),
    ]
    assert receipt.latency.value == pytest.approx(sum(part.latency for part in receipt.parts))
    assert receipt.latency.value > 0.25
    assert receipt.latency.queue < receipt.parts[2].latency
    assert receipt.energy.value == pytest.approx(JOULES + 4 * JOULES)
    assert receipt.energy_here == pytest.approx(4 * JOULES)


def test_what_was_spent_counts_against_the_bounds(site: Site, images: NDArray[np.uint8]) -> None:
    begun = site.begin(images[2], 0)
    dear = Bounds(max_energy=JOULES + 3 * JOULES)
    answer = site.go_on(begun, dear)
    assert (answer.exit, answer.receipt.energy.met) == (1, True)
    with pytest.raises(InfeasibleBound) as refusal:
        site.go_on(begun, Bounds(max_energy=2 * JOULES))
    assert refusal.value.nearest.max_energy == pytest.approx(1.05 * 3 * JOULES)
    late = replace(begun.receipt.parts[0], latency=SECONDS)
    begun = replace(begun, receipt=replace(begun.receipt, parts=(late,)))
    with pytest.raises(InfeasibleBound):
        site.go_on(begun, NO_TIME)
    unknown = replace(late, latency=0.0, energy=None)
    begun = replace(begun, receipt=replace(begun.receipt, parts=(unknown,)))
    energy = site.go_on(begun, Bounds()).receipt.energy
    assert (energy.value, energy.kind) == (None, "unknown")


@pytest.mark.parametrize("floor", [0.68, 0.75])
def test_a_floor_is_kept_by_the_threshold_of_both(
    site: Site, images: NDArray[np.uint8], floor: float
) -> None:
    model = site.board.store.ready("tiny")
    bounds = Bounds(min_accuracy=floor)
    plan = model.planner.plan(bounds, model.costs)
    assert plan.guarantee is not None and plan.threshold is not None
    reasons = set()
    for image in images[:24]:
        alone = site.board.submit("tiny", image, bounds, ALL).future.result(PATIENCE)
        begun = site.begin(image, 0, bounds)
        answer = site.go_on(begun, bounds) if begun.suspended else begun
        assert (answer.exit, answer.reason) == (alone.exit, alone.reason)
        assert answer.receipt.accuracy == alone.receipt.accuracy
        assert answer.receipt.accuracy.met
        reasons.add(begun.reason)
    assert "suspended" in reasons


def test_a_floor_that_the_threshold_before_does_not_keep_is_refused(
    site: Site, images: NDArray[np.uint8]
) -> None:
    model = site.server.store.ready("tiny")
    certified = model.planner.certify(2, 0.7)
    assert certified is not None and certified.value > 0
    features, past = site.past(site.begin(images[3], 0))
    lax = replace(past, threshold=certified.value - 0.005)
    with pytest.raises(InfeasibleBound, match="min_accuracy"):
        site.server.resume("tiny", features, lax, Bounds(min_accuracy=0.7), ALL)
    safe = replace(past, threshold=certified.value)
    job = site.server.resume("tiny", features, safe, Bounds(min_accuracy=0.7), ALL)
    assert job.future.result(PATIENCE).receipt.accuracy.guarantee is not None


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"bundle": "0" * 64}, BundlesDiffer, None),
        ({"exit": 2}, InvalidInput, "exit"),
        ({"exit": 7}, InvalidInput, "exit"),
        ({"size": (8, 8)}, InvalidInput, "size"),
        ({"parts": (Part("board", (0, 1), 0.0, 0.0),)}, InvalidInput, "parts"),
    ],
)
def test_what_cannot_go_on_is_refused(
    site: Site,
    images: NDArray[np.uint8],
    change: dict[str, object],
    kind: type[DelenError],
    field: str | None,
) -> None:
    features, past = site.past(site.begin(images[4], 0))
    with pytest.raises(kind) as refusal:
        site.server.resume("tiny", features, replace(past, **change), Bounds(), ALL)
    assert getattr(refusal.value, "field", None) == field
    if kind is BundlesDiffer:
        assert past.bundle in str(refusal.value) and "0" * 64 in str(refusal.value)


def test_only_a_sample_alone_is_suspended_before_the_last_exit(
    site: Site, images: NDArray[np.uint8]
) -> None:
    for exit in (2, 9):
        with pytest.raises(InvalidInput) as refusal:
            site.board.submit("tiny", images[0], Bounds(), Options(suspend_at=exit))
        assert refusal.value.field == "suspend_at"
    with pytest.raises(InvalidInput, match="batch"):
        site.board.submit_batch("tiny", images[:2], Bounds(), Options(suspend_at=0))


def test_the_caps_hold_up_to_the_exit_where_it_is_suspended(
    site: Site, images: NDArray[np.uint8]
) -> None:
    begun = site.begin(images[5], 0, Bounds(max_energy=1.5 * JOULES))
    assert (begun.reason, begun.receipt.energy.met) == ("suspended", True)
    with pytest.raises(InfeasibleBound):
        site.begin(images[5], 1, Bounds(max_energy=1.5 * JOULES))


def test_a_suspended_answer_misses_no_floor(site: Site, images: NDArray[np.uint8]) -> None:
    for image in images:
        begun = site.begin(image, 0, Bounds(min_accuracy=0.7))
        if begun.reason == "suspended":
            break
    accuracy = begun.receipt.accuracy
    assert (accuracy.bound, accuracy.met, accuracy.guarantee) == (0.7, None, None)


class Neighbours:
    """The server as the board's only peer, by function calls."""

    def __init__(self) -> None:
        self.site: Site | None = None
        self.problem: Exception | None = None
        self.asked: list[Result] = []

    def find(
        self, model: Model, bounds: Bounds, delay: float, waits: Sequence[float] | None
    ) -> Way | None:
        return Way("server", 1, SECONDS / 1e3, JOULES / 10)

    def go_on(self, peer: str, begun: Result, priority: int | None, seconds: float) -> Result:
        self.asked.append(begun)
        if self.problem is not None:
            raise self.problem
        assert self.site is not None
        receipt = begun.receipt
        bounds = Bounds(min_accuracy=receipt.accuracy.bound, max_energy=receipt.energy.bound)
        return self.site.go_on(begun, bounds)


@pytest.fixture
def together(
    either_bundle: Path, make_costs: Callable[..., CostModel]
) -> Iterator[tuple[Site, Neighbours]]:
    neighbours = Neighbours()
    site = neighbours.site = Site(either_bundle, make_costs, neighbours)
    yield site, neighbours
    for runtime in (site.board, site.server):
        runtime.close()


OUT_OF_REACH = Bounds(max_energy=2.5 * JOULES, min_accuracy=0.8)
"""Only exit 2 keeps it, and the board takes 3 times JOULES to get there."""


def harder(site: Site, images: NDArray[np.uint8], floor: float = 0.8) -> NDArray[np.uint8]:
    """An image that no exit before 2 is confident of."""
    for image in images:
        options, bounds = Options(suspend_at=1), Bounds(min_accuracy=floor)
        begun = site.server.submit("tiny", image, bounds, options).future.result(PATIENCE)
        if begun.reason == "suspended":
            return image
    raise AssertionError("all are easy")


def test_a_floor_that_the_board_cannot_keep_is_kept_by_the_server(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8]
) -> None:
    site, _ = together
    image = harder(site, images)
    alone = site.server.submit("tiny", image, Bounds(min_accuracy=0.8), ALL)
    expected = alone.future.result(PATIENCE)
    result = site.board.submit("tiny", image, OUT_OF_REACH, ALL).future.result(PATIENCE)
    assert (result.exit, result.reason, result.index) == (2, "final", expected.index)
    np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=2e-3)
    receipt = result.receipt
    assert receipt.met
    assert receipt.accuracy.guarantee is not None
    assert [(part.node, part.exits) for part in receipt.parts] == [
        ("board", (0, 1)),
        ("link", ()),
        ("server", (2,)),
    ]
    assert receipt.latency.value == pytest.approx(sum(part.latency for part in receipt.parts))
    assert receipt.energy.value == pytest.approx(2.1 * JOULES)
    assert receipt.energy_here == pytest.approx(2 * JOULES)


def test_what_the_board_is_confident_of_stays_there(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8]
) -> None:
    site, neighbours = together
    jobs = [site.board.submit("tiny", image, OUT_OF_REACH, ALL) for image in images[:24]]
    results = [job.future.result(PATIENCE) for job in jobs]
    early = [result for result in results if result.exit < 2]
    assert 0 < len(early) < len(results)
    assert {result.reason for result in early} == {"confident"}
    assert all(result.receipt.met for result in results)
    assert len(neighbours.asked) == len(results) - len(early)


def test_when_the_server_fails_the_answer_is_the_boards_and_says_so(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8]
) -> None:
    site, neighbours = together
    image = harder(site, images)
    neighbours.problem = DaemonUnreachable("it has died")
    result = site.board.submit("tiny", image, OUT_OF_REACH, ALL).future.result(PATIENCE)
    assert (result.exit, result.reason) == (1, "energy")
    receipt = result.receipt
    assert (receipt.met, receipt.accuracy.met, receipt.energy.met) == (False, False, True)
    assert [(part.node, part.exits) for part in receipt.parts] == [
        ("board", (0, 1)),
        ("server", ()),
    ]
    assert receipt.energy.value == pytest.approx(2 * JOULES)


@pytest.mark.parametrize("wrong", [{"exit": 1}, {"exit": 9}, {"probabilities": None}])
def test_an_answer_that_is_none_to_the_job_counts_as_none(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8], wrong: dict[str, Any]
) -> None:
    site, neighbours = together
    image = harder(site, images)
    go_on = neighbours.go_on

    def lie(peer: str, begun: Result, priority: int | None, seconds: float) -> Result:
        return replace(go_on(peer, begun, priority, seconds), **wrong)

    neighbours.go_on = lie  # type: ignore[method-assign]
    result = site.board.submit("tiny", image, OUT_OF_REACH, ALL).future.result(PATIENCE)
    assert (result.exit, result.receipt.met) == (1, False)


def test_what_can_be_kept_here_asks_nobody(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8]
) -> None:
    site, neighbours = together
    image = harder(site, images)
    bounds = Bounds(max_energy=3.5 * JOULES, min_accuracy=0.8)
    result = site.board.submit("tiny", image, bounds, ALL).future.result(PATIENCE)
    assert (result.exit, result.receipt.parts) == (2, ())
    with pytest.raises(InfeasibleBound):
        site.board.submit("tiny", image, Bounds(max_energy=JOULES / 2), ALL)
    assert neighbours.asked == []


def submit_crowded(
    site: Site, neighbours: Neighbours, image: NDArray[np.uint8], floor: float = 0.8
) -> Job:
    """A job of the board, which keeps ``floor`` by itself, but is planned behind much work."""
    model = site.board.store.ready("tiny")

    class Crowded(Plans):
        def admit(self, *arguments: Any, **named: Any) -> Plan:
            raise Overloaded("much waits", retry_after=1.0)

    plans = PlansWithPeers(model, Crowded(model.planner, model.costs), neighbours)
    number = next(site.board._ids)
    bounds, now = Bounds(min_accuracy=floor), time.monotonic()
    job = Job(number, f"request-{number}", model, bounds, ALL, now, image)
    job.plans = plans
    return site.board._admission.admit(job, 1, tuple, 0.0)[0]


def test_a_job_that_comes_back_with_room_goes_on_here(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8]
) -> None:
    """The plan was made behind more work than there turned out to be."""
    site, neighbours = together
    image = harder(site, images)
    neighbours.problem = DaemonUnreachable("it has died")
    job = submit_crowded(site, neighbours, image)
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (2, "final")
    assert [(part.node, part.exits) for part in result.receipt.parts] == [
        ("board", (0, 1, 2)),
        ("server", ()),
    ]


def test_a_job_that_comes_back_keeps_the_ceiling_of_the_fleet(
    together: tuple[Site, Neighbours],
    images: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, neighbours = together
    neighbours.problem = DaemonUnreachable("it has died")
    monkeypatch.setattr(neighbours, "find", lambda *_: Way("server", 0, 0.1, JOULES / 10))
    floor = 0.7
    image = harder(site, images, floor)
    free = submit_crowded(site, neighbours, image, floor).future.result(PATIENCE)
    ceiling = Ceiling(exit=1)
    site.board.directives.obey(Directive("board", time.monotonic(), 60.0, {"default": ceiling}))
    led = submit_crowded(site, neighbours, image, floor).future.result(PATIENCE)
    assert len(neighbours.asked) == 2
    assert (free.exit, led.exit) == (2, 1)


def test_a_job_that_nobody_waits_for_is_no_failure_of_its_peer(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    site, neighbours = together
    image, sent, given_up = harder(site, images), threading.Event(), threading.Event()

    def hang(peer: str, begun: Result, priority: int | None, seconds: float) -> Result:
        sent.set()
        given_up.wait(PATIENCE)
        raise DaemonUnreachable("it gave no answer in time")

    neighbours.go_on = hang  # type: ignore[method-assign]
    job = site.board.submit("tiny", image, OUT_OF_REACH, ALL)
    assert sent.wait(PATIENCE)
    site.board._executor.cancel(job)
    assert job.future.result(PATIENCE).reason == "cancelled"
    given_up.set()
    for thread in threading.enumerate():
        if thread.name.startswith("delen-handover"):
            thread.join(1.0)
    assert "did not go on" not in caplog.text
    assert site.board.handovers() == {}


def test_a_job_without_time_left_is_not_sent(
    together: tuple[Site, Neighbours],
    images: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site, neighbours = together
    image = harder(site, images)
    monkeypatch.setattr("delen.engine.handovers._MARGIN", 1e7)
    bounds = replace(OUT_OF_REACH, max_latency=1e6)
    result = site.board.submit("tiny", image, bounds, ALL).future.result(PATIENCE)
    assert (result.exit, result.receipt.accuracy.met) == (1, False)
    assert neighbours.asked == []
    assert "did not go on" not in caplog.text


def test_a_job_stays_where_as_many_as_can_be_are_away(
    together: tuple[Site, Neighbours], images: NDArray[np.uint8]
) -> None:
    site, neighbours = together
    image, gate = harder(site, images), threading.Event()
    sent, go_on = threading.Semaphore(0), neighbours.go_on

    def wait(peer: str, begun: Result, priority: int | None, seconds: float) -> Result:
        sent.release()
        gate.wait(PATIENCE)
        return go_on(peer, begun, priority, seconds)

    neighbours.go_on = wait  # type: ignore[method-assign]
    away = [submit_crowded(site, neighbours, image) for _ in range(8)]
    try:
        for _ in away:
            assert sent.acquire(timeout=PATIENCE)
        result = submit_crowded(site, neighbours, image).future.result(PATIENCE)
        assert (result.exit, result.reason) == (2, "final")
        assert [(part.node, part.exits) for part in result.receipt.parts] == [
            ("board", (0, 1, 2)),
            ("server", ()),
        ]
    finally:
        gate.set()
    for job in away:
        assert job.future.result(PATIENCE).receipt.parts[-1].node == "server"
    assert site.board.handovers() == {("server", "answered"): 8}


def test_a_job_stays_where_there_is_no_thread_for_it(
    together: tuple[Site, Neighbours],
    images: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, neighbours = together
    image = harder(site, images)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        stayed = submit_crowded(site, neighbours, image).future.result(PATIENCE)
    assert (stayed.exit, stayed.receipt.parts[-1].exits) == (2, ())
    away = submit_crowded(site, neighbours, image).future.result(PATIENCE)
    assert away.receipt.parts[-1].node == "server"
    assert len(neighbours.asked) == 1
