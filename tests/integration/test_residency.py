"""Models that share a cap on memory which does not hold them all, through ONNX Runtime."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.manifest import MANIFEST, Bundle, load_bundle, read_manifest
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.engine.backends.base import Network, SegmentRun
from delen.engine.backends.choose import BundleBackends
from delen.engine.model import Model, OpenedBundle
from delen.engine.runtime import Runtime
from delen.errors import (
    BackendError,
    BundleError,
    DelenError,
    InfeasibleBound,
    ModelLoading,
    NoRoom,
)
from delen.profile.cost_model import CostModel
from delen.residency.lease import ModelResidency
from delen.residency.sizes import segment_bytes
from policies.dispatch.published.edf import Edf
from policies.fleet.api import Directive
from tests.builders.engine import PATIENCE, build_model, build_runtime

pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

NAMES = ("a", "b", "c")
LAST = Bounds(max_energy=100.0)
"""Met by every exit, so that each request runs to the last one."""


class Opener:
    """Opens bundles with costs of a test's choice. Loads of (model, segment) in ``held`` wait
    until they are taken out, those in ``broken`` fail, and those in ``unusable`` are loaded but
    fail to run. Segments in ``stuck`` fail to be dropped."""

    def __init__(self, make_costs: Callable[..., CostModel]) -> None:
        self._make_costs = make_costs
        self.held: set[tuple[str, int]] = set()
        self.broken: set[tuple[str, int]] = set()
        self.unusable: set[tuple[str, int]] = set()
        self.stuck: set[tuple[str, int]] = set()
        self.has_profiles = True
        self.loads: list[tuple[str, int]] = []
        self.loaded: set[tuple[str, int]] = set()

    def open(self, path: Path) -> OpenedBundle:
        bundle = load_bundle(path)
        network = BundleBackends("cpu", 1).open(bundle)
        load, drop, run = network.load, network.drop, network.run

        def watched(segment: int) -> None:
            key = (bundle.name, segment)
            self.loads.append(key)
            end = time.monotonic() + PATIENCE
            while key in self.held and time.monotonic() < end:
                time.sleep(0.002)
            if key in self.broken:
                raise OSError("the card has gone")
            load(segment)
            self.loaded.add(key)

        def watched_drop(segment: int) -> None:
            if (bundle.name, segment) in self.stuck:
                raise OSError("the driver has gone")
            drop(segment)
            self.loaded.discard((bundle.name, segment))

        def watched_run(segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
            if (bundle.name, segment) in self.unusable:
                raise BackendError("out of memory")
            return run(segment, samples, lane)

        network.load = watched  # type: ignore[method-assign]
        network.drop = watched_drop  # type: ignore[method-assign]
        network.run = watched_run  # type: ignore[method-assign]
        return OpenedBundle(bundle, network, self.complete)

    def complete(
        self, bundle: Bundle, network: Network, residency: ModelResidency, is_whole: bool
    ) -> Model | None:
        if not self.has_profiles and not is_whole:
            return None
        costs = self._make_costs(*[0.02] * 3, energy=(0.04,) * 3)
        return build_model(bundle, costs, network=network, residency=residency)


@pytest.fixture
def opener(make_costs: Callable[..., CostModel]) -> Opener:
    return Opener(make_costs)


@pytest.fixture(scope="module")
def bundles(
    write_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("three")
    return [write_bundle(folder / name, name=name, seed=seed) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def sizes(bundles: list[Path]) -> list[int]:
    """Bytes of the three segments, which are nearly the same in each bundle."""
    manifest, _ = read_manifest(bundles[0])
    return [segment_bytes(manifest, segment, 1) for segment in range(3)]


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (4, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def house(bundles: list[Path], opener: Opener) -> Iterator[Callable[..., Runtime]]:
    """Makes a runtime with a cap, in bytes, of the ``bundles`` or of other ``folders``."""
    made: list[Runtime] = []

    def make(cap: float, folders: list[Path] = bundles) -> Runtime:
        runtime = build_runtime(folders, opener.open, dispatch=Edf(), loaded=(), memory=cap)
        made.append(runtime)
        return runtime

    yield make
    opener.held.clear()
    for runtime in made:
        runtime.close()


def infer(runtime: Runtime, name: str, image: Any, bounds: Bounds = LAST, **how: Any) -> Result:
    return runtime.submit(name, image, bounds, Options(probabilities=True, **how)).future.result(
        PATIENCE
    )


def probabilities(result: Result) -> list[float]:
    assert result.probabilities is not None
    return [float(probability) for probability in result.probabilities]


def states(runtime: Runtime, name: str) -> list[str]:
    segments = runtime.segments(name)
    assert segments is not None
    return [segment.state for segment in segments]


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def watched_cap(runtime: Runtime) -> Iterator[None]:
    """Looks again and again whether the cap is kept."""
    over, ended = [], threading.Event()

    def look() -> None:
        while not ended.is_set():
            memory = runtime.memory()
            assert memory is not None
            if memory.taken > memory.cap:
                over.append(memory.taken)
            time.sleep(0.0005)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not over


def test_models_are_loaded_on_demand_and_come_back_with_the_same_answers(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(1.5 * sum(sizes))
    with watched_cap(runtime):
        answers = [
            [infer(runtime, name, image) for name in NAMES for image in images] for _ in range(3)
        ]
    assert {result.exit for each in answers for result in each} == {2}
    for again in answers[1:]:
        for result, first in zip(again, answers[0], strict=True):
            assert probabilities(result) == probabilities(first)
    memory = runtime.memory()
    assert memory is not None and memory.evictions > 0
    assert memory.loads > len(NAMES) * len(sizes)


def test_many_at_once_all_get_their_answers(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(1.2 * sum(sizes))
    for name in NAMES:
        infer(runtime, name, images[0])
    names = [NAMES[k % 3] for k in range(24)]
    with watched_cap(runtime):
        jobs: list[Any] = [None] * len(names)

        def ask(k: int) -> None:
            jobs[k] = infer(runtime, names[k], images[k % 4])

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(names))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert [(result.model, result.exit) for result in jobs] == [(name, 2) for name in names]


def test_early_exits_answer_while_late_segments_load(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.held = {("a", 1)}
    runtime = house(2 * sum(sizes))
    runtime.load("a")
    wait_until(lambda: opener.loads == [("a", 0), ("a", 1)])
    assert states(runtime, "a") == ["resident", "loading", "absent"]
    early = infer(runtime, "a", images[0], Bounds(max_latency=0.1), on_infeasible="best_effort")
    assert early.exit == 0
    waiting = runtime.submit("a", images[0], LAST, Options())
    assert infer(runtime, "a", images[1], Bounds(max_energy=0.05)).exit == 0
    assert not waiting.future.done()
    opener.held.clear()
    assert waiting.future.result(PATIENCE).exit == 2
    assert infer(runtime, "a", images[0], Bounds(max_latency=5.0)).exit == 2


def test_a_job_whose_segment_loads_too_slowly_is_answered_with_what_it_has(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.held = {("a", 2)}
    runtime = house(2 * sum(sizes))
    runtime.load("a")
    result = infer(runtime, "a", images[0], Bounds(max_latency=0.5))
    assert (result.exit, result.reason) == (1, "latency")


def test_a_floor_waits_for_a_late_segment_or_hears_what_can_be_kept(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    runtime = house(sizes[0] + sizes[1])
    runtime.load("a")
    wait_until(lambda: states(runtime, "a") == ["resident", "resident", "absent"])
    floor = Bounds(min_accuracy=0.9)
    with pytest.raises(InfeasibleBound, match=r"exit 2 could, .* memory") as refused:
        infer(runtime, "a", images[0], floor)
    nearest = refused.value.nearest.min_accuracy
    assert nearest is not None and nearest < 0.9
    kept = infer(runtime, "a", images[0], Bounds(min_accuracy=nearest))
    assert kept.receipt.met and kept.exit <= 1
    preview = runtime.preview("a", Bounds())
    assert (preview.exit, preview.limited_by) == (1, "memory")


def test_a_floor_waits_where_there_is_room(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(1.4 * sum(sizes))
    infer(runtime, "b", images[0])
    runtime.load("a")
    result = infer(runtime, "a", images[0], Bounds(min_accuracy=0.9))
    assert result.receipt.met


def test_a_request_in_a_hurry_is_told_when_to_come_back(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(1.5 * sum(sizes))
    with pytest.raises(ModelLoading) as refused:
        infer(runtime, "a", images[0], Bounds(max_latency=0.005))
    assert 0 < refused.value.retry_after < 5
    wait_until(lambda: runtime.store.entry("a").state == "ready")
    assert infer(runtime, "a", images[0], Bounds(max_latency=5.0)).receipt.met


def test_few_wait_for_a_model_to_be_opened_and_the_others_come_back(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.held = {("a", 0)}
    runtime = house(2 * sum(sizes))
    exits: list[int] = []

    def ask() -> None:
        try:
            exits.append(infer(runtime, "a", images[0]).exit)
        except ModelLoading:
            exits.append(-1)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(exits) == 4)
    opener.held.clear()
    for thread in threads:
        thread.join(PATIENCE)
    assert exits == [-1] * 4 + [2] * 8


def test_a_job_whose_segment_has_no_room_any_more_ends_with_what_it_has(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    runtime = house(1.05 * sum(sizes))
    runtime.load("a")
    wait_until(lambda: states(runtime, "a") == ["resident"] * 3)
    opener.held = {("b", 0)}
    others = [threading.Thread(target=infer, args=(runtime, "b", images[0]))]
    others[0].start()
    wait_until(lambda: ("b", 0) in opener.loads)
    assert states(runtime, "a") == ["resident", "resident", "absent"]
    jobs = [runtime.submit("a", image, LAST, Options()) for image in images]
    others += [threading.Thread(target=runtime.load, args=(name,)) for name in ("b", "c")]
    for thread in others[1:]:
        thread.start()
    results = [job.future.result(PATIENCE) for job in jobs]
    assert {(result.exit, result.reason) for result in results} == {(1, "failed")}
    opener.held.clear()
    for thread in others:
        thread.join(PATIENCE)
    assert [infer(runtime, name, images[0]).exit for name in NAMES] == [0, 0, 0]


def test_a_load_by_name_leaves_a_model_that_is_measured_its_room(
    house: Callable[[float], Runtime], opener: Opener, sizes: list[int], images: NDArray[np.uint8]
) -> None:
    opener.has_profiles, opener.held = False, {("a", 2)}
    runtime = house(1.05 * sum(sizes))
    measuring = threading.Thread(target=infer, args=(runtime, "a", images[0]))
    measuring.start()
    wait_until(lambda: opener.loads == [("a", 0), ("a", 1), ("a", 2)])
    with pytest.raises(ModelLoading, match="a is measured"):
        runtime.load("b")
    opener.held.clear()
    measuring.join(PATIENCE)
    opener.has_profiles = True
    assert runtime.load("b").name == "b"


def test_a_request_that_waits_for_a_model_is_refused_once_loaded_ones_leave_it_no_room(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.held = {("a", 0)}
    runtime = house(2.5 * sizes[0])
    loads = [threading.Thread(target=runtime.load, args=(name,)) for name in ("a", "c")]
    loads[0].start()
    wait_until(lambda: opener.loads == [("a", 0)])
    refused: list[DelenError] = []

    def ask() -> None:
        with pytest.raises(NoRoom) as error:
            infer(runtime, "b", images[0])
        refused.append(error.value)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: runtime._loader._waiting == 2)
    loads[1].start()
    asking.join(PATIENCE)
    assert [(error.code, error.status) for error in refused] == [("no_room", 507)]
    opener.held.clear()
    for thread in loads:
        thread.join(PATIENCE)
    assert [infer(runtime, name, images[0]).exit for name in ("a", "c")] == [0, 0]


def test_a_cap_below_the_first_segment_is_an_error_that_says_what_is_needed(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(sizes[0] - 1)
    for attempt in (lambda: runtime.load("a"), lambda: infer(runtime, "a", images[0])):
        with pytest.raises(NoRoom, match=r"models\.memory_mb is .*first segment of a takes"):
            attempt()


def test_what_was_loaded_by_name_keeps_its_first_exit(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(sizes[0] + sum(sizes))
    runtime.load("a")
    assert infer(runtime, "b", images[0]).exit == 2
    assert infer(runtime, "c", images[0]).exit == 2
    assert states(runtime, "a")[0] == "resident"
    tight = house(1.5 * sizes[0])
    tight.load("a")
    with pytest.raises(NoRoom, match=r"beside .* MB that loaded models keep"):
        tight.load("b")
    assert infer(tight, "a", images[0]).exit == 0


def test_a_segment_that_fails_to_load_leaves_the_rest_serving(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
    caplog: pytest.LogCaptureFixture,
) -> None:
    opener.broken = {("a", 2), ("b", 0)}
    runtime = house(3 * sum(sizes))
    results = [infer(runtime, "a", images[0]) for _ in range(2)]
    assert [result.exit for result in results] == [1, 1]
    assert states(runtime, "a") == ["resident", "resident", "failed"]
    assert "the card has gone" in str(runtime.store.entry("a").problem)
    for _ in range(2):
        with pytest.raises(Exception, match="the card has gone"):
            infer(runtime, "b", images[0])
    assert runtime.store.entry("b").state == "failed"
    assert infer(runtime, "c", images[0]).exit == 2
    failures = [record for record in caplog.records if "cannot be loaded" in record.message]
    assert len(failures) == 2
    opener.broken.clear()
    runtime.load("b")
    assert infer(runtime, "b", images[0]).exit == 2


def test_a_segment_that_fails_to_load_and_to_be_dropped_stops_no_other(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
    failed: Callable[[str], int],
) -> None:
    opener.broken = opener.stuck = {("a", 2), ("b", 0)}
    runtime = house(3 * sum(sizes))
    assert infer(runtime, "a", images[0]).exit == 1
    assert states(runtime, "a") == ["resident", "resident", "failed"]
    with pytest.raises(BackendError, match="the card has gone"):
        infer(runtime, "b", images[0])
    assert infer(runtime, "c", images[0]).exit == 2
    assert failed("loader") == 2


def test_a_segment_that_fails_its_first_run_is_dropped_again(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.unusable = {("a", 2), ("b", 0)}
    runtime = house(3 * sum(sizes))
    runtime.load("a")
    wait_until(lambda: states(runtime, "a") == ["resident", "resident", "failed"])
    assert infer(runtime, "a", images[0]).exit == 1
    with pytest.raises(BackendError, match="out of memory"):
        runtime.load("b")
    memory = runtime.memory()
    assert memory is not None and memory.taken == sizes[0] + sizes[1]
    assert opener.loaded == {("a", 0), ("a", 1)}
    opener.unusable.clear()
    runtime.load("a")
    wait_until(lambda: states(runtime, "a") == ["resident"] * 3)
    assert (infer(runtime, "a", images[0]).exit, runtime.store.entry("a").problem) == (2, None)


def test_a_segment_that_failed_is_waited_for_once_it_is_loaded_again(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.broken = {("a", 2)}
    runtime = house(2 * sum(sizes))
    assert infer(runtime, "a", images[0]).exit == 1
    opener.broken.clear()
    opener.held = {("a", 2)}
    runtime.load("a")
    wait_until(lambda: states(runtime, "a") == ["resident", "resident", "loading"])
    job = runtime.submit("a", images[0], LAST, Options())
    opener.held.clear()
    assert job.future.result(PATIENCE).exit == 2


def test_a_model_that_failed_while_it_was_measured_leaves_nothing_in_memory(
    house: Callable[[float], Runtime], opener: Opener, sizes: list[int]
) -> None:
    opener.has_profiles, opener.broken = False, {("a", 2)}
    runtime = house(2 * sum(sizes))
    with pytest.raises(BackendError, match="the card has gone"):
        runtime.load("a")
    memory = runtime.memory()
    assert (runtime.store.entry("a").state, opener.loaded) == ("failed", set())
    assert memory is not None and memory.taken == 0


def test_bundles_may_be_looked_for_again_while_a_model_is_opened(
    house: Callable[..., Runtime], opener: Opener, sizes: list[int], images: NDArray[np.uint8]
) -> None:
    opener.held = {("a", 0)}
    runtime = house(4 * sum(sizes))
    waiting = [threading.Thread(target=runtime.load, args=(name,)) for name in ("a", "b")]
    waiting[0].start()
    wait_until(lambda: opener.loads == [("a", 0)])
    waiting[1].start()
    wait_until(lambda: runtime._loader._waiting == 2)
    runtime.store.rescan()
    opener.held.clear()
    for thread in waiting:
        thread.join(PATIENCE)
    assert [runtime.store.entry(name).state for name in ("a", "b")] == ["ready", "ready"]
    loads = list(opener.loads)
    wait_until(lambda: states(runtime, "b") == ["resident"] * 3)
    assert infer(runtime, "b", images[0]).exit == 2
    assert opener.loads.count(("b", 0)) == loads.count(("b", 0)) == 1


def test_a_folder_that_changed_is_described_as_it_is_loaded(
    house: Callable[..., Runtime],
    write_bundle: Callable[..., Path],
    tmp_path: Path,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    folder = write_bundle(tmp_path / "a", name="a")
    runtime = house(4 * sum(sizes), [folder])
    assert infer(runtime, "a", images[0]).exit == 2
    shutil.rmtree(folder)
    write_bundle(folder, name="a", exits=2)
    rewrite(folder, version="2")
    assert infer(runtime, "a", images[0]).version == runtime.store.entry("a").manifest.version
    runtime.unload("a")
    result = infer(runtime, "a", images[0])
    manifest = runtime.store.entry("a").manifest
    assert (result.version, result.exit, result.exits) == ("2", 1, 2)
    assert (manifest.version, len(manifest.exits), len(states(runtime, "a"))) == ("2", 2, 2)
    runtime.unload("a")
    rewrite(folder, name="c")
    with pytest.raises(BundleError, match=r"'c'.*SIGHUP"):
        runtime.load("a")


def test_a_model_that_cannot_come_back_begins_anew_once_bundles_are_looked_for(
    house: Callable[..., Runtime],
    opener: Opener,
    write_bundle: Callable[..., Path],
    tmp_path: Path,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    folders = [write_bundle(tmp_path / name, name=name) for name in ("a", "b")]
    runtime = house(sum(sizes), folders)
    assert infer(runtime, "a", images[0]).version == "1"
    assert infer(runtime, "b", images[0]).exit == 2
    assert states(runtime, "a") == ["absent"] * 3
    opener.broken = {("a", 0)}
    with pytest.raises(BackendError, match="the card has gone"):
        infer(runtime, "a", images[0])
    assert runtime.store.entry("a").state == "failed"
    opener.broken.clear()
    rewrite(folders[0], version="2")
    wait_until(lambda: runtime.store.state.slots["a"].is_idle)
    runtime.store.rescan()
    entry = runtime.store.entry("a")
    assert (entry.state, entry.problem, entry.manifest.version) == ("unloaded", None, "2")
    assert infer(runtime, "a", images[0]).version == "2"
    assert infer(runtime, "b", images[0]).exit == 2
    opener.broken = {("a", 0)}
    with pytest.raises(BackendError, match="the card has gone"):
        infer(runtime, "a", images[0])
    folders.pop(0)
    wait_until(lambda: runtime.store.state.slots["a"].is_idle)
    runtime.store.rescan()
    assert [name for name, _ in runtime.store.entries()] == ["b"]


def test_an_unloaded_model_frees_all_and_comes_back_on_demand(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(2 * sum(sizes))
    before = infer(runtime, "a", images[0])
    runtime.unload("a")
    memory = runtime.memory()
    assert memory is not None and memory.taken == 0
    assert (states(runtime, "a"), runtime.store.entry("a").state) == (["absent"] * 3, "unloaded")
    assert probabilities(infer(runtime, "a", images[0])) == probabilities(before)


def test_a_model_without_a_profile_is_loaded_whole_to_be_measured(
    house: Callable[[float], Runtime],
    opener: Opener,
    sizes: list[int],
    images: NDArray[np.uint8],
) -> None:
    opener.has_profiles = False
    assert infer(house(1.5 * sum(sizes)), "a", images[0]).exit == 2
    with pytest.raises(NoRoom, match=r"a has no profile of this device.*delen profile"):
        house(sum(sizes) - 1).load("a")


def test_models_of_a_directive_are_loaded_whole_and_the_rest_is_said_to_have_no_room(
    house: Callable[[float], Runtime], sizes: list[int], images: NDArray[np.uint8]
) -> None:
    runtime = house(1.5 * sum(sizes))
    infer(runtime, "c", images[0])
    directive = Directive("here", time.monotonic(), 600.0, resident=("a", "b"))
    with watched_cap(runtime):
        runtime.directives.obey(directive)
        wait_until(lambda: runtime.missing("a") is None)
        wait_until(lambda: "leaves no room" in (runtime.missing("b") or ""))
    assert states(runtime, "a") == ["resident"] * 3
    assert states(runtime, "b") == ["resident", "absent", "absent"]
    assert "no model 'gone'" in (runtime.missing("gone") or "")
    standing = {model.name: model for model in runtime.standing().models}
    assert standing["a"].load == 0.0
    assert standing["b"].load > 0.0
    assert infer(runtime, "c", images[0]).exit == 2, "what is asked for comes first"
    wait_until(lambda: runtime.missing("a") is None)


def test_a_model_of_a_directive_that_fails_is_said_to(
    house: Callable[[float], Runtime], opener: Opener, sizes: list[int]
) -> None:
    opener.broken = {("a", 0)}
    runtime = house(2 * sum(sizes))
    runtime.directives.obey(Directive("here", time.monotonic(), 600.0, resident=("a",)))
    wait_until(lambda: "the card has gone" in (runtime.missing("a") or ""))
    assert [model.name for model in runtime.standing().models] == []


def test_without_a_cap_a_directive_loads_what_is_not_loaded(
    house: Callable[[float], Runtime], images: NDArray[np.uint8]
) -> None:
    runtime = house(inf)
    runtime.directives.obey(Directive("here", time.monotonic(), 600.0, resident=("b",)))
    wait_until(lambda: runtime.missing("b") is None)
    assert infer(runtime, "b", images[0]).exit == 2
