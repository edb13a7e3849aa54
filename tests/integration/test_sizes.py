"""Bundles of several input sizes in the engine: the size is planned, and inputs are scaled down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.images import scale_down
from delen.bundle.manifest import load_bundle
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.daemon.in_process import Engine
from delen.engine.backends.choose import BundleBackends
from delen.engine.guarantee_monitor import GuaranteeMonitor
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import InfeasibleBound, InvalidInput
from delen.measure.segments import Effort, measure_profile
from delen.profile.cost_model import CostModel
from delen.profile.device import identify
from delen.profile.reader import load_profile
from policies.dispatch.published.edf import Edf
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import Planner, PlannerSettings
from tests.builders.engine import Recorder, build_runtime
from tests.builders.sized_bundle import LARGE, SMALL, WAY, draw_images, write_sized_bundle

ort = pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

SECONDS = {LARGE: 100.0, SMALL: 20.0}
"""Of a segment, by profiles that no test's machine ever exceeds."""
JOULES = {LARGE: 0.04, SMALL: 0.01}


@pytest.fixture(scope="module", params=[False, True], ids=["free", "own graphs"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sized_bundle(tmp_path_factory.mktemp("sized"), own_graphs=request.param)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return draw_images(40, seed=7)[0]


def sized_model(path: Path, make_costs: Callable[..., CostModel]) -> Model:
    bundle = load_bundle(path)
    network = BundleBackends("cpu", 1).load(bundle)
    monitor = GuaranteeMonitor()
    smaller: tuple[Model, ...] = ()
    pairs = zip(bundle.sizes, (network, *network.smaller), strict=True)
    for each, runs_on in reversed(list(pairs)):
        assert each.size is not None
        seconds, joules = (SECONDS[each.size],) * 3, (JOULES[each.size],) * 3
        costs = make_costs(*seconds, energy=joules, growth=0.0)
        planner = Planner(each.calibration, PlannerSettings(), size=each.size, sizes=2)
        model = Model(each, runs_on, planner, BoundsPolicy(), costs, monitor, smaller=smaller)
        smaller = (model, *smaller)
    return smaller[0]


@pytest.fixture
def observer() -> Recorder:
    return Recorder()


@pytest.fixture
def runtime(
    bundle: Path, make_costs: Callable[..., CostModel], observer: Recorder
) -> Iterator[Runtime]:
    runtime = build_runtime(
        [bundle],
        lambda path: sized_model(path, make_costs),
        loaded=["sized"],
        observer=observer,
        dispatch=Edf(),
    )
    yield runtime
    runtime.close()


def infer(
    runtime: Runtime, image: NDArray[Any], bounds: Bounds, options: Options | None = None
) -> Result:
    job = runtime.submit("sized", image, bounds, options or Options(probabilities=True))
    result: Result = job.future.result(60)
    return result


def alone(bundle: Path, image: NDArray[np.uint8], exit: int) -> NDArray[np.float32]:
    """Probabilities of the chain run by itself, on an image as it is."""
    opened = load_bundle(bundle)
    of_size = next(b for b in opened.sizes if b.size == image.shape[:2])
    feed: dict[str, Any] = {"input": image[None]}
    for spec in of_size.exits[: exit + 1]:
        logits, _, *features = ort.InferenceSession(bundle / spec.graph).run(None, feed)
        feed = {"features": features[0] if features else None, "rows": np.zeros(1, np.int64)}
    powers = np.exp(logits[0] - logits[0].max())
    probabilities: NDArray[np.float32] = powers / powers.sum()
    return probabilities


def test_without_bounds_an_input_is_answered_at_its_own_size(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    assert infer(runtime, images[0], Bounds()).receipt.size == LARGE
    small = scale_down(images[0], WAY, (*SMALL, 3))
    assert infer(runtime, small, Bounds()).size == SMALL


def test_a_tight_bound_has_a_large_image_scaled_down(
    runtime: Runtime, bundle: Path, images: NDArray[np.uint8]
) -> None:
    tight = Bounds(max_latency=0.99 * SECONDS[LARGE])
    for image in images[:4]:
        result = infer(runtime, image, tight)
        assert (result.size, result.exit, result.receipt.met) == (SMALL, 2, True)
        expected = alone(bundle, scale_down(image, WAY, (*SMALL, 3)), 2)
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)


def test_a_large_image_is_answered_as_it_is_where_there_is_time(
    runtime: Runtime, bundle: Path, images: NDArray[np.uint8]
) -> None:
    result = infer(runtime, images[0], Bounds(max_latency=4 * SECONDS[LARGE]))
    assert (result.size, result.exit) == (LARGE, 2)
    np.testing.assert_allclose(result.probabilities, alone(bundle, images[0], 2), atol=1e-5)


def test_an_input_is_never_scaled_up(runtime: Runtime, images: NDArray[np.uint8]) -> None:
    small = scale_down(images[0], WAY, (*SMALL, 3))
    result = infer(runtime, small, Bounds(max_latency=4 * SECONDS[LARGE]))
    assert (result.size, result.exit) == (SMALL, 2)


def test_a_floor_is_kept_at_the_size_that_costs_least(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    model = runtime.store.ready("sized")
    accuracies = {m.bundle.size: m.accuracies[-1] for m in model.sizes}
    below = Bounds(min_accuracy=accuracies[SMALL] - 0.03)
    above = Bounds(min_accuracy=accuracies[SMALL] + 0.01)
    assert infer(runtime, images[0], below).size == SMALL
    assert infer(runtime, images[0], above).size == LARGE


def test_a_refusal_names_what_the_best_size_could_keep(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(InfeasibleBound) as refused:
        infer(runtime, images[0], Bounds(max_latency=0.9 * SECONDS[SMALL]))
    nearest = refused.value.nearest
    assert nearest is not None and nearest.max_latency is not None
    assert nearest.max_latency < SECONDS[LARGE]
    assert infer(runtime, images[0], Bounds(max_latency=nearest.max_latency)).size == SMALL
    tight = Bounds(max_latency=0.99 * SECONDS[LARGE], min_accuracy=0.999)
    with pytest.raises(InfeasibleBound) as refused:
        infer(runtime, images[0], tight)
    assert refused.value.nearest is not None
    kept = replace(tight, min_accuracy=refused.value.nearest.min_accuracy)
    assert infer(runtime, images[0], kept).receipt.met


def test_batches_never_mix_sizes(
    runtime: Runtime, images: NDArray[np.uint8], observer: Recorder
) -> None:
    tight, wide = Bounds(max_latency=0.99 * SECONDS[LARGE]), Bounds()
    jobs = [
        runtime.submit("sized", image, bounds, Options(on_infeasible="best_effort"))
        for image in images[:8]
        for bounds in (tight, wide)
    ]
    sizes = [job.future.result(60).size for job in jobs]
    assert set(sizes) == {LARGE, SMALL}
    assert {work.model for work in observer.works} == {"sized@8x8", "sized@4x4"}


def test_all_samples_of_a_batch_run_at_one_size(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    tight = Bounds(max_latency=0.99 * SECONDS[LARGE])
    jobs = runtime.submit_batch("sized", list(images[:3]), tight, Options())
    assert {job.future.result(60).size for job in jobs} == {SMALL}


def test_another_size_is_refused_with_those_there_are(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    for wrong in (np.zeros((6, 6, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)):
        with pytest.raises(InvalidInput, match=r"\[8, 8, 3\] or \[4, 4, 3\]") as refused:
            infer(runtime, wrong, Bounds())
        assert refused.value.field == "input"
    mixed = [images[0], scale_down(images[0], WAY, (*SMALL, 3))]
    with pytest.raises(InvalidInput, match="one size"):
        runtime.submit_batch("sized", mixed, Bounds(), Options())


def test_a_plan_lists_the_exits_of_all_sizes(runtime: Runtime) -> None:
    preview = runtime.preview("sized", Bounds(max_latency=0.99 * SECONDS[LARGE]))
    assert preview.size == SMALL
    assert preview.limited_by == "latency"
    assert [(point.size, point.exit) for point in preview.points] == [
        (size, exit) for size in (SMALL, LARGE) for exit in range(3)
    ]


def test_labels_of_all_sizes_are_tested_against_their_own_promises(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    small = scale_down(images[0], WAY, (*SMALL, 3))
    answers = [infer(runtime, image, Bounds()) for image in (images[0], small)]
    feedback = runtime.feedback("sized", {each.request_id: each.index for each in answers})
    assert (feedback.accepted, feedback.wrong) == (2, 0)
    assert feedback.guarantee.samples == 2


def test_an_unloaded_model_leaves_nothing_in_the_scheduler(
    runtime: Runtime, images: NDArray[np.uint8]
) -> None:
    infer(runtime, images[0], Bounds())
    runtime.unload("sized")
    runtime.load("sized")
    assert infer(runtime, images[0], Bounds()).size == LARGE


def test_a_run_lasts_from_before_its_inputs_are_scaled_down(
    runtime: Runtime,
    images: NDArray[np.uint8],
    observer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began: list[float] = []

    def note(*arguments: Any) -> NDArray[np.uint8]:
        began.append(time.monotonic())
        return scale_down(*arguments)

    monkeypatch.setattr("delen.engine.backends.base.scale_down", note)
    assert infer(runtime, images[0], Bounds(max_latency=0.99 * SECONDS[LARGE])).size == SMALL
    [first, *_] = observer.works
    assert [first.began <= at <= first.ended for at in began] == [True]


def test_the_profile_of_a_smaller_size_says_what_scaling_down_to_it_takes(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> NDArray[np.uint8]:
        time.sleep(0.01)
        return scale_down(*arguments)

    monkeypatch.setattr("delen.engine.backends.base.scale_down", slow)
    opened = load_bundle(bundle)
    small, network = opened.smaller[0], BundleBackends("cpu", 1).load(opened).smaller[0]
    least = Effort(seconds=0.0, least_runs=2, spread=0.25, tries=1, strict=False)
    profile = measure_profile(small, network, identify(Path("/"), "cpu", 1), least)
    assert profile.cost(0, 1).latency.p50 > 0.01
    assert profile.cost(0, 2).latency.p50 > 0.02
    assert profile.cost(1, 1).latency.p50 < 0.01


def test_the_first_start_measures_each_size_and_keeps_all_in_one_file(
    bundle: Path, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    with Engine(bundle, state=tmp_path) as engine:
        assert engine.infer(images[0]).size == LARGE
        assert {point.size for point in engine.plan().points} == {LARGE, SMALL}
    [file] = tmp_path.rglob("*.json")
    kept = load_profile(file)
    assert [each.model for each in kept.sizes] == ["sized@8x8", "sized@4x4"]
    assert kept.host is not None
    assert kept.smaller[0].host == kept.host
