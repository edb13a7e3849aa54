"""The engine with a real bundle through ONNX Runtime and through torch, without HTTP.

Whatever runs it, the answers have to be those of the ONNX graphs run one sample at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from delen.bundle.manifest import load_bundle
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.engine.backends.base import Network
from delen.engine.backends.choose import BundleBackends
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import (
    Draining,
    InfeasibleBound,
    InvalidInput,
    ModelLoading,
    ModelNotFound,
    Overloaded,
)
from delen.profile.cost_model import CostModel
from policies.dispatch.published.edf import Edf
from tests.builders.engine import PATIENCE, Recorder, build_model, build_runtime

ort = pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

SEGMENT_SECONDS = 100.0
"""So long, by its profile, that no test's machine is ever slower; runs then count as fast."""
SEGMENT_JOULES = 0.04


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (64, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def direct(
    tiny_bundle: Path, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits ``[exits, n, classes]`` and confidences of the chain, one sample at a time."""
    sessions = [ort.InferenceSession(tiny_bundle / f"segment{exit}.onnx") for exit in range(3)]
    logits = np.empty((3, len(images), 4), np.float32)
    confidence = np.empty((3, len(images)), np.float32)
    for index, image in enumerate(images):
        feed = {"input": image[None]}
        for exit, session in enumerate(sessions):
            outputs = session.run(None, feed)
            logits[exit, index], confidence[exit, index] = outputs[0][0], outputs[1][0]
            feed = {"features": outputs[-1], "rows": np.zeros(1, np.int64)}
    return logits, confidence


@pytest.fixture(scope="module")
def load_model(make_costs: Callable[..., CostModel]) -> Callable[[Path], Model]:
    """Makes the model of a bundle on the CPU, with costs of no interest."""

    def load(path: Path) -> Model:
        costs = make_costs(*[SEGMENT_SECONDS] * 3, energy=(SEGMENT_JOULES,) * 3, growth=0.0)
        return build_model(path, costs)

    return load


@pytest.fixture
def observer() -> Recorder:
    return Recorder()


@pytest.fixture
def runtime(
    either_bundle: Path, load_model: Callable[[Path], Model], observer: Recorder
) -> Iterator[Runtime]:
    """It cuts nothing off, so that every job ends as it was planned to."""
    runtime = build_runtime([either_bundle], load_model, observer=observer, dispatch=Edf())
    yield runtime
    runtime.close()


ALL = Options(probabilities=True)
TO_EXIT = [Bounds(max_energy=SEGMENT_JOULES * (exit + 1.5)) for exit in range(3)]
"""Bounds that are planned to end at just that exit, whatever the confidence."""


def check(result: Result, direct: Any, index: int, bounds: Bounds, runtime: Runtime) -> None:
    """The answer is that of the chain run alone, at the exit that its own bounds call for."""
    logits, confidence = direct
    model = runtime.store.ready("tiny")
    plan = model.planner.plan(bounds, model.costs)
    exit = next(
        (
            e
            for e in range(plan.exit)
            if plan.threshold is not None and confidence[e, index] >= plan.threshold
        ),
        plan.exit,
    )
    assert result.exit == exit
    cooled = logits[exit, index].astype(np.float64) / 1.25
    powers = np.exp(cooled - cooled.max())
    np.testing.assert_allclose(result.probabilities, powers / powers.sum(), atol=1e-5)
    assert result.index == logits[exit, index].argmax()
    assert result.label == f"class {result.index}"
    assert result.probability == pytest.approx(confidence[exit, index], abs=1e-5)


@pytest.mark.parametrize("bounds", [*TO_EXIT, Bounds(), Bounds(min_accuracy=0.7)], ids=str)
def test_answers_are_those_of_the_chain_run_alone(
    runtime: Runtime, images: NDArray[np.uint8], direct: Any, bounds: Bounds
) -> None:
    for index, image in enumerate(images[:20]):
        result = runtime.submit("tiny", image, bounds, ALL).future.result(PATIENCE)
        check(result, direct, index, bounds, runtime)


def test_bounds_lead_to_different_exits(runtime: Runtime, images: NDArray[np.uint8]) -> None:
    def exits(bounds: Bounds) -> set[int]:
        jobs = [runtime.submit("tiny", image, bounds, ALL) for image in images]
        return {job.future.result(PATIENCE).exit for job in jobs}

    assert [exits(bounds) for bounds in TO_EXIT] == [{0}, {1}, {2}]
    assert exits(Bounds(min_accuracy=0.7)) == {0, 1, 2}


every_bound = st.sampled_from([*TO_EXIT, Bounds(), Bounds(min_accuracy=0.7)])


@given(
    st.lists(st.tuples(st.integers(0, 63), every_bound, st.integers(1, 9)), min_size=2, max_size=50)
)
def test_company_in_a_batch_changes_no_answer(
    module_runtime: Runtime,
    images: NDArray[np.uint8],
    direct: Any,
    asked: list[tuple[int, Bounds, int]],
) -> None:
    jobs = [
        module_runtime.submit(
            "tiny", images[index], bounds, Options(probabilities=True, priority=priority)
        )
        for index, bounds, priority in asked
    ]
    for job, (index, bounds, _) in zip(jobs, asked, strict=True):
        check(job.future.result(PATIENCE), direct, index, bounds, module_runtime)


@pytest.fixture(scope="module")
def module_runtime(either_bundle: Path, load_model: Callable[[Path], Model]) -> Iterator[Runtime]:
    runtime = build_runtime([either_bundle], load_model, dispatch=Edf())
    yield runtime
    runtime.close()


def test_requests_from_many_threads_get_their_own_answers(
    runtime: Runtime, observer: Recorder, images: NDArray[np.uint8], direct: Any
) -> None:
    rng = np.random.default_rng(1)
    choices = [*TO_EXIT, Bounds(), Bounds(min_accuracy=0.7)]
    asked = [
        (int(rng.integers(len(images))), choices[int(rng.integers(len(choices)))])
        for _ in range(400)
    ]
    together = threading.Barrier(8)

    def client(number: int) -> list[tuple[int, Bounds, Result]]:
        together.wait(PATIENCE)
        mine = asked[number::8]
        jobs = [runtime.submit("tiny", images[index], bounds, ALL) for index, bounds in mine]
        return [
            (index, bounds, job.future.result(PATIENCE))
            for job, (index, bounds) in zip(jobs, mine, strict=True)
        ]

    with ThreadPoolExecutor(8) as clients:
        answers = [answer for part in clients.map(client, range(8)) for answer in part]
    assert len(answers) == 400
    assert len({result.request_id for _, _, result in answers}) == 400
    for index, bounds, result in answers:
        check(result, direct, index, bounds, runtime)
    assert max(work.batch for work in observer.works) <= 8


@given(st.data())
def test_features_stay_with_their_sample(
    network: Network, images: NDArray[np.uint8], direct: Any, data: st.DataObject
) -> None:
    """Any subset of any earlier batches, in any order, runs the next segment like each alone."""
    logits, confidence = direct
    suspended: list[tuple[int, Any]] = []
    for _ in range(data.draw(st.integers(1, 3))):
        drawn = data.draw(st.lists(st.integers(0, 63), min_size=1, max_size=8))
        run = network.run(0, [images[index] for index in drawn])
        np.testing.assert_allclose(run.logits, logits[0, drawn], atol=1e-4)
        suspended += zip(drawn, run.features, strict=True)
    for segment in (1, 2):
        going_on = data.draw(st.permutations(suspended))[: data.draw(st.integers(1, 8))]
        taken = [index for index, _ in going_on]
        run = network.run(segment, [features for _, features in going_on])
        np.testing.assert_allclose(run.logits, logits[segment, taken], atol=1e-4)
        np.testing.assert_allclose(run.confidence, confidence[segment, taken], atol=1e-5)
        suspended = list(zip(taken, run.features or [None] * len(taken), strict=True))


@pytest.fixture(scope="module")
def network(either_bundle: Path) -> Network:
    return BundleBackends("cpu", 1).load(load_bundle(either_bundle))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"shape \[4, 4, 3\]; tiny accepts \[4, 4, 1\]"),
        (np.zeros((2, 4, 4, 1), np.uint8), "shape"),
        (np.zeros((4, 4, 1), np.float32), "is float32; tiny accepts uint8"),
        (np.zeros((4, 4, 1), np.int8), "is int8; tiny accepts uint8"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(
    runtime: Runtime, sample: NDArray[Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        runtime.submit("tiny", sample, Bounds(), Options())


def test_more_predictions_than_classes_are_refused(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(InvalidInput, match="top_k is 5; tiny has 4 classes"):
        runtime.submit("tiny", images[0], Bounds(), Options(top_k=5))
    result = runtime.submit("tiny", images[0], Bounds(), Options(top_k=4)).future.result(PATIENCE)
    told = [prediction.probability for prediction in result.predictions]
    assert told == sorted(told, reverse=True)
    assert sum(told) == pytest.approx(1, abs=1e-5)
    assert result.probabilities is None


def test_infeasible_bounds_are_refused_before_running(
    runtime: Runtime, observer: Recorder, images: NDArray[np.uint8]
) -> None:
    for bounds in (
        Bounds(max_latency=1.0),
        Bounds(max_energy=0.001),
        Bounds(min_accuracy=0.9999),
    ):
        with pytest.raises(InfeasibleBound) as caught:
            runtime.submit("tiny", images[0], bounds, Options())
        near = caught.value.nearest
        nearest = Bounds(
            max_latency=near.max_latency,
            min_accuracy=near.min_accuracy,
            max_energy=near.max_energy,
        )
        assert runtime.preview("tiny", nearest).feasible
        assert not runtime.preview("tiny", bounds).feasible
    assert observer.works == []


def test_best_effort_runs_what_is_infeasible_and_says_that_it_missed(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    options = Options(on_infeasible="best_effort")
    job = runtime.submit("tiny", images[0], Bounds(min_accuracy=0.9999), options)
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (2, "final")
    assert (result.receipt.met, result.receipt.accuracy.guarantee) == (False, None)
    cheap = runtime.submit("tiny", images[0], Bounds(max_energy=0.001), options)
    result = cheap.future.result(PATIENCE)
    assert (result.exit, result.receipt.energy.met) == (0, False)


def test_an_unknown_model_is_answered_with_those_known(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(ModelNotFound, match="no model 'huge'; known: tiny"):
        runtime.submit("huge", images[0], Bounds(), Options())


def test_an_unloaded_model_is_refused_until_it_is_loaded(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    runtime.unload("tiny")
    with pytest.raises(ModelLoading, match="unloaded"):
        runtime.submit("tiny", images[0], Bounds(), Options())
    runtime.load("tiny")
    assert runtime.submit("tiny", images[0], Bounds(), Options()).future.result(PATIENCE)


class Gate:
    """A network whose runs wait until they are let through."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.running, self.open = threading.Event(), threading.Event()

    def run(self, segment: int, samples: Any, lane: int = 0) -> Any:
        self.running.set()
        assert self.open.wait(PATIENCE)
        return self._network.run(segment, samples, lane)


@pytest.fixture
def make_gated(
    tiny_bundle: Path,
    load_model: Callable[[Path], Model],
    make_costs: Callable[..., CostModel],
) -> Iterator[Callable[..., tuple[Runtime, Gate]]]:
    """Makes runtimes where a batch takes as long as its samples one by one."""
    gates: list[Gate] = []
    runtimes: list[Runtime] = []

    def load(path: Path) -> Model:
        model = load_model(path)
        gates.append(Gate(model.network))
        costs = make_costs(*[SEGMENT_SECONDS] * 3, growth=1.0)
        return Model(model.bundle, gates[-1], model.planner, model.policy, costs)

    def make(max_backlog: float = inf) -> tuple[Runtime, Gate]:
        runtimes.append(build_runtime([tiny_bundle], load, max_backlog=max_backlog))
        return runtimes[-1], gates[-1]

    yield make
    for gate in gates:
        gate.open.set()
    for runtime in runtimes:
        runtime.close()


@pytest.fixture
def gated(make_gated: Callable[..., tuple[Runtime, Gate]]) -> tuple[Runtime, Gate]:
    return make_gated()


def test_a_backlog_beyond_the_limit_is_overload_for_its_tenant(
    make_gated: Callable[..., tuple[Runtime, Gate]], images: NDArray[np.uint8]
) -> None:
    runtime, gate = make_gated(8.5 * SEGMENT_SECONDS)
    jobs = [runtime.submit("tiny", images[0], Bounds(), Options())]
    assert gate.running.wait(PATIENCE)
    jobs += [runtime.submit("tiny", images[k], Bounds(), Options()) for k in (1, 2, 3)]
    with pytest.raises(Overloaded, match="s of work wait already") as caught:
        runtime.submit("tiny", images[4], Bounds(), Options())
    assert caught.value.retry_after == pytest.approx(1.25 * 0.5 * SEGMENT_SECONDS, rel=0.02)
    jobs.append(runtime.submit("tiny", images[4], Bounds(), Options(tenant="other")))
    gate.open.set()
    assert len([job.future.result(PATIENCE) for job in jobs]) == 5


def test_waiting_makes_plans_shallower_and_then_refuses(
    gated: tuple[Runtime, Gate], images: NDArray[np.uint8]
) -> None:
    runtime, gate = gated
    bounds = Bounds(max_latency=5.5 * SEGMENT_SECONDS)
    jobs = [runtime.submit("tiny", images[0], bounds, Options())]
    assert gate.running.wait(PATIENCE)
    jobs += [runtime.submit("tiny", images[k], bounds, Options()) for k in range(1, 5)]
    assert [job.plan.exit for job in jobs] == [2, 2, 2, 1, 0]
    assert jobs[4].plan.latency == pytest.approx(5 * SEGMENT_SECONDS, rel=0.01)
    with pytest.raises(Overloaded, match="cannot be kept behind") as caught:
        runtime.submit("tiny", images[5], bounds, Options())
    assert caught.value.retry_after == pytest.approx(5 * SEGMENT_SECONDS, rel=0.01)
    gate.open.set()
    assert [job.future.result(PATIENCE).exit for job in jobs][3:] == [1, 0]


def test_what_waited_for_others_too_long_is_overload_and_never_runs(
    gated: tuple[Runtime, Gate], images: NDArray[np.uint8]
) -> None:
    runtime, gate = gated
    bounds, waited = Bounds(max_latency=5 * SEGMENT_SECONDS), 20 * SEGMENT_SECONDS
    arrived = time.monotonic() - waited
    with pytest.raises(Overloaded, match="cannot be kept behind") as caught:
        runtime.submit("tiny", images[0], bounds, Options(), arrived, waited)
    assert caught.value.retry_after == pytest.approx(waited, rel=0.01)
    with pytest.raises(InfeasibleBound):
        runtime.submit("tiny", images[0], bounds, Options(), arrived)  # it was its own time
    assert not gate.running.is_set()


BEST_EFFORT = Options(on_infeasible="best_effort")


def test_an_overloaded_device_answers_from_shallower_exits_than_planned(
    gated: tuple[Runtime, Gate], images: NDArray[np.uint8]
) -> None:
    runtime, gate = gated
    tight = Bounds(max_latency=5.5 * SEGMENT_SECONDS)
    jobs = [runtime.submit("tiny", images[0], Bounds(max_energy=1.0), BEST_EFFORT)]
    assert gate.running.wait(PATIENCE)
    jobs += [runtime.submit("tiny", images[k], tight, BEST_EFFORT) for k in range(1, 25)]
    gate.open.set()
    results = [job.future.result(PATIENCE) for job in jobs]
    assert {result.reason for result in results} >= {"policy"}
    for job, result in zip(jobs, results, strict=True):
        if result.reason == "policy":
            accuracy = result.receipt.accuracy
            view = runtime.store.ready("tiny").view
            own = view.accuracy_after(job.exit, job.confidence, job.exit)
            assert result.exit < job.plan.exit
            assert (accuracy.expected, accuracy.guarantee) == (own, None)


def test_a_model_in_use_is_not_unloaded(
    gated: tuple[Runtime, Gate], images: NDArray[np.uint8]
) -> None:
    runtime, gate = gated
    job = runtime.submit("tiny", images[0], Bounds(), Options())
    with pytest.raises(Overloaded, match="1 jobs under way"):
        runtime.unload("tiny")
    gate.open.set()
    assert job.future.result(PATIENCE)


def test_a_draining_runtime_answers_what_it_has_and_takes_no_more(
    gated: tuple[Runtime, Gate], images: NDArray[np.uint8]
) -> None:
    runtime, gate = gated
    jobs = [runtime.submit("tiny", image, Bounds(), Options()) for image in images[:3]]
    assert not runtime.drain(0)
    assert runtime.draining
    with pytest.raises(Draining):
        runtime.submit("tiny", images[0], Bounds(), Options())
    gate.open.set()
    assert runtime.drain(PATIENCE)
    assert all(job.future.result(PATIENCE) for job in jobs)


def test_a_closed_runtime_refuses(runtime: Runtime, images: NDArray[np.uint8]) -> None:
    runtime.close()
    with pytest.raises(Draining):
        runtime.submit("tiny", images[0], Bounds(), Options())
    runtime.close()
