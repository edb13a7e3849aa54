"""A profile that was measured on a busy machine says so, and is measured again later."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen import Engine
from delen.bundle.manifest import load_bundle
from delen.core.bounds import Bounds, Options
from delen.daemon.build_model import ModelBuilder
from delen.daemon.build_runtime import Opened, open_runtime
from delen.daemon.config import config_of
from delen.engine.backends.bound import BoundSegment
from delen.engine.backends.choose import BundleBackends
from delen.engine.model import Model
from delen.measure.disturbance import GaveWay
from delen.measure.segments import QUICK, measure_profile
from delen.profile.device import identify
from delen.profile.profile import Disturbance, Metering, Profile, Quantiles
from delen.profile.reader import load_profile
from delen.profile.store import save_profile
from delen.replay.in_process import FailureCount
from delen.residency.sizes import segment_sizes
from tests.builders.sized_bundle import write_sized_bundle

BUSY = Disturbance(busy=True, others=0.5)
IMAGE = np.zeros((4, 4, 1), np.uint8)
HOG = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print("on", flush=True)
while True:
    pass
"""


@contextmanager
def hogs() -> Iterator[None]:
    """A busy process on each core that the tests may use."""
    started = [
        subprocess.Popen([sys.executable, "-c", HOG, str(core)], stdout=subprocess.PIPE)
        for core in os.sched_getaffinity(0)
    ]
    try:
        for hog in started:
            assert hog.stdout is not None and hog.stdout.readline() == b"on\n"
        yield
    finally:
        for hog in started:
            hog.kill()
            hog.communicate()


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that nothing else runs."""
    monkeypatch.setattr("delen.measure.disturbance._busy_seconds", lambda file: 0.0)


@pytest.fixture
def idle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime without requests is looked at at once."""
    monkeypatch.setattr("delen.daemon.idle_profiler._LOOK_EVERY", 0.01)
    monkeypatch.setattr("delen.daemon.idle_profiler._IDLE_SECONDS", 0.0)


@contextmanager
def opened(*bundles: Path, state: Path, memory_mb: float = 0.0) -> Iterator[Opened]:
    settings = {"device.threads": 1, "power.source": "none", "models.memory_mb": memory_mb}
    config = config_of({"state.path": str(state), **settings})
    runtime = open_runtime(config, FailureCount(), lambda: bundles)
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def kept(
    tiny_bundle: Path,
    tmp_path: Path,
    brief_profile: None,
    calm: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """Keeps a profile of the tiny bundle like a measured one but for what is given. The next start
    leaves it as it is."""

    def keep(energy: Metering | None = None, **other: Any) -> Path:
        with Engine(tiny_bundle, state=tmp_path, threads=1):
            (file,) = tmp_path.rglob("*.json")
        known = load_profile(file)
        if energy is not None:
            segments = tuple(
                {batch: replace(cost, energy=0.25) for batch, cost in costs.items()}
                for costs in known.segments
            )
            known = replace(known, energy=energy, segments=segments)
        save_profile(replace(known, **other), file)
        monkeypatch.setattr("delen.daemon.idle_profiler.is_calm", lambda: False)
        return file

    return keep


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_a_hog_of_every_core_shows_in_what_was_measured(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    network = BundleBackends("cpu", 1).load(bundle)
    with hogs():
        profile = measure_profile(bundle, network, identify(Path("/"), "cpu", 1), QUICK)
    assert profile.measured is not None
    assert profile.busy and profile.measured.others > 0.1


def test_a_first_profile_from_a_busy_machine_says_so_and_the_next_calm_start_measures_again(
    tiny_bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with caplog.at_level(logging.INFO, "delen"), hogs():
        with Engine(tiny_bundle, state=tmp_path, threads=1):
            pass
        (file,) = tmp_path.rglob("*.json")
        first = file.read_bytes()
        assert json.loads(first)["measured"]["busy"] is True
        assert "was measured while other work had" in caplog.text
        with Engine(tiny_bundle, state=tmp_path, threads=1):
            assert file.read_bytes() == first
    monkeypatch.setattr("delen.measure.disturbance._busy_seconds", lambda file: 0.0)
    caplog.clear()
    with Engine(tiny_bundle, state=tmp_path, threads=1):
        assert load_profile(file).measured == Disturbance(busy=False, others=0.0)
    caplog.clear()
    with Engine(tiny_bundle, state=tmp_path, threads=1):
        assert "other work" not in caplog.text


@pytest.mark.usefixtures("idle_at_once")
def test_a_running_daemon_measures_again_while_it_serves_nothing(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path]
) -> None:
    metering = Metering("ina3221", "module_input", 2.0, 5, 10.0)
    file = kept(measured=BUSY, energy=metering, interference=(1.0, 1.7))
    with opened(tiny_bundle, state=tmp_path) as runtime:
        costs = runtime.runtime.load("tiny").costs
        runtime.profiler.start()
        until(lambda: not costs.profile.busy)
        assert costs.profile.host_costs.request > 0
        runtime.runtime.submit("tiny", IMAGE, Bounds(), Options()).future.result(60)
    profile = load_profile(file)
    assert profile.measured == Disturbance(busy=False, others=0.0)
    assert (profile.energy, profile.interference) == (metering, (1.0, 1.7))
    assert profile.cost(2, 8).energy == 0.25


@pytest.mark.usefixtures("idle_at_once")
def test_what_serving_takes_is_measured_where_the_load_left_it_out(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path]
) -> None:
    file = kept(host=None)
    before = load_profile(file)
    with opened(tiny_bundle, state=tmp_path) as runtime:
        costs = runtime.runtime.load("tiny").costs
        runtime.profiler.start()
        until(lambda: costs.profile.host is not None)
    assert load_profile(file).host is not None
    assert load_profile(file).segments == before.segments


@pytest.mark.parametrize(
    "other", [{"measured": BUSY, "quick": False}, {"host": None, "quick": False}, {}]
)
def test_a_thorough_profile_and_a_right_one_are_left_alone(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path], other: dict[str, Any]
) -> None:
    file = kept(**other)
    before = file.read_bytes()
    with opened(tiny_bundle, state=tmp_path) as runtime:
        profile = runtime.runtime.load("tiny").costs.profile
        idle_since = runtime.runtime.idle_since
        assert idle_since is not None
        runtime.profiler.look(idle_since)
        assert runtime.runtime.load("tiny").costs.profile is profile
    assert file.read_bytes() == before


@pytest.mark.parametrize("part", ["segments", "overhead"])
def test_a_request_ends_the_measurement_and_is_answered(
    tiny_bundle: Path,
    tmp_path: Path,
    kept: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    file = kept(measured=BUSY) if part == "segments" else kept(host=None)
    before = file.read_bytes()
    with opened(tiny_bundle, state=tmp_path) as runtime:
        engine = runtime.runtime
        model = engine.load("tiny")
        idle_since, run = engine.idle_since, model.network.run
        runs: list[int] = []
        answers: list[None] = []

        def ask_at_the_third(segment: int, samples: Any, lane: int = 0) -> Any:
            if lane == 1:
                runs.append(segment)
            if len(runs) == 3 and not answers:
                answers.append(None)
                engine.submit("tiny", IMAGE, Bounds(), Options()).future.result(60)
            return run(segment, samples, lane)

        monkeypatch.setattr(model.network, "run", ask_at_the_third)
        assert idle_since is not None
        runtime.profiler.look(idle_since)
        assert len(runs) == 3
        assert model.costs.profile.busy is (part == "segments")
        assert engine.submit("tiny", IMAGE, Bounds(), Options()).future.result(60).exits == 3
        assert file.read_bytes() == before
        idle_since = engine.idle_since
        assert idle_since is not None
        runtime.profiler.look(idle_since)
        assert not model.costs.profile.busy and model.costs.profile.host is not None


def test_a_measurement_ends_once_its_memory_is_waited_for(
    write_bundle: Callable[..., Path],
    tmp_path: Path,
    brief_profile: None,
    calm: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delen.daemon.idle_profiler.is_calm", lambda: False)
    one, other = (write_bundle(tmp_path / name, name=name) for name in ("one", "other"))
    size = sum(segment_sizes(load_bundle(one).manifest, 1))
    with opened(one, other, state=tmp_path, memory_mb=1.05e-6 * size) as runtime:
        engine = runtime.runtime

        def ask(name: str) -> int:
            exits: int = engine.submit(name, IMAGE, Bounds(), Options()).future.result(60).exits
            return exits

        ask("one")
        until(lambda: all(each.state == "resident" for each in engine.segments("one") or ()))
        model = engine.store.ready("one")
        run, runs = model.network.run, count(1)
        answers: list[Future[int]] = []

        def ask_at_the_third(segment: int, samples: Any, lane: int = 0) -> Any:
            if lane == 1 and next(runs) == 3:
                answers.append(clients.submit(ask, "other"))
                until(lambda: engine.store.state.slots["other"].waiting_since < math.inf)
            return run(segment, samples, lane)

        monkeypatch.setattr(model.network, "run", ask_at_the_third)
        with ThreadPoolExecutor(1) as clients:
            look(runtime)
            assert next(runs) == 4
            assert answers[0].result() == 3


@pytest.mark.parametrize("gives_way", [False, True])
def test_a_measurement_leaves_no_buffers_behind(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path], gives_way: bool
) -> None:
    def bound() -> int:
        gc.collect()
        return sum(isinstance(thing, BoundSegment) for thing in gc.get_objects())

    kept(measured=BUSY)
    with opened(tiny_bundle, state=tmp_path) as runtime:
        model = runtime.runtime.load("tiny")
        before = bound()
        ran = count()
        builder = runtime.profiler._builder
        try:
            builder.measure_again(model, lambda: gives_way and next(ran) == 5)
        except GaveWay:
            assert gives_way
        assert bound() == before


def test_a_measurement_that_is_disturbed_again_changes_nothing(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kept(measured=BUSY)
    before = file.read_bytes()
    with opened(tiny_bundle, state=tmp_path) as runtime:
        model = runtime.runtime.load("tiny")
        monkeypatch.setattr("delen.daemon.build_model.worse", lambda one, other: BUSY)
        measured: list[Model] = []
        again = runtime.profiler._builder.measure_again

        def note(model: Model, gives_way: Callable[[], bool]) -> Profile:
            measured.append(model)
            return again(model, gives_way)

        monkeypatch.setattr(runtime.profiler._builder, "measure_again", note)
        for _ in range(2):
            idle_since = runtime.runtime.idle_since
            assert idle_since is not None
            runtime.profiler.look(idle_since)
        assert measured == [model]  # the second try comes a minute later
        assert model.costs.profile.busy
    assert file.read_bytes() == before


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were measured again. The next try comes at once."""
    monkeypatch.setattr("delen.daemon.idle_profiler._TRY_AGAIN", 0.0)
    measured: list[str] = []
    again = ModelBuilder.measure_again

    def note(self: ModelBuilder, model: Model, gives_way: Callable[[], bool]) -> Profile:
        measured.append(model.name)
        return again(self, model, gives_way)

    monkeypatch.setattr(ModelBuilder, "measure_again", note)
    return measured


def look(runtime: Opened) -> None:
    idle_since = runtime.runtime.idle_since
    assert idle_since is not None
    runtime.profiler.look(idle_since)


def test_what_serving_takes_is_measured_again_where_the_machine_got_busy(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path], tried: list[str]
) -> None:
    file = kept(host=None)
    before = file.read_bytes()
    with opened(tiny_bundle, state=tmp_path) as runtime:
        costs = runtime.runtime.load("tiny").costs
        with pytest.MonkeyPatch.context() as busy:
            busy.setattr("delen.daemon.build_model.worse", lambda one, other: BUSY)
            look(runtime)
        assert costs.profile.lacks_host and file.read_bytes() == before
        look(runtime)
        assert not costs.profile.lacks_host and not costs.profile.busy
    assert tried == ["tiny"] * 2
    assert load_profile(file).host is not None


def test_what_cannot_be_found_out_is_not_looked_for_again_until_the_model_is_reloaded(
    tiny_bundle: Path,
    tmp_path: Path,
    kept: Callable[..., Path],
    tried: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept(host=None)
    monkeypatch.setattr("delen.measure.overhead.measure_host", lambda *arguments: None)
    with opened(tiny_bundle, state=tmp_path) as runtime:
        for tries in (1, 2):
            runtime.runtime.load("tiny")
            look(runtime)
            look(runtime)
            assert tried == ["tiny"] * tries
            runtime.runtime.unload("tiny")


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("busy", [[0, 1], [0], [1]], ids=["both", "largest", "smaller"])
def test_all_sizes_are_served_by_what_serving_the_largest_takes(
    tmp_path: Path, brief_profile: None, monkeypatch: pytest.MonkeyPatch, busy: list[int]
) -> None:
    monkeypatch.setattr("delen.daemon.idle_profiler.is_calm", lambda: False)
    bundle = write_sized_bundle(tmp_path / "bundles")
    with Engine(bundle, state=tmp_path / "state", threads=1):
        (file,) = (tmp_path / "state").rglob("*.json")
    first = load_profile(file)
    assert first.host is not None
    host = replace(first.host, stretch=Quantiles(2.0, 2.0, 2.0, 2.0))
    large, small = (
        replace(each, host=host, measured=BUSY if index in busy else each.measured, smaller=())
        for index, each in enumerate(first.sizes)
    )
    save_profile(replace(large, smaller=(small,)), file)
    with opened(bundle, state=tmp_path / "state") as runtime:
        model = runtime.runtime.load("sized")
        look(runtime)
        served = model.smaller[0].costs.profile
    kept = load_profile(file)
    assert not any(each.busy for each in kept.sizes)
    assert kept.host is not None and (kept.host == host) is (0 not in busy)
    assert kept.smaller[0].host == kept.host
    stretch = kept.host.stretch or Quantiles(1.0, 1.0, 1.0, 1.0)
    measured = kept.smaller[0].cost(0, 1).latency
    assert served.cost(0, 1).latency.p50 == pytest.approx(stretch.p50 * measured.p50)


@pytest.mark.usefixtures("brief_profile")
def test_a_first_profile_says_what_serving_takes_though_the_machine_is_busy(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delen.daemon.idle_profiler.is_calm", lambda: False)
    monkeypatch.setattr("delen.daemon.build_model.worse", lambda one, other: BUSY)
    with Engine(tiny_bundle, state=tmp_path, threads=1):
        (file,) = tmp_path.rglob("*.json")
        profile = load_profile(file)
    assert profile.host is not None and profile.busy


@pytest.mark.usefixtures("idle_at_once")
def test_closing_ends_a_measurement(
    tiny_bundle: Path, tmp_path: Path, kept: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(measured=BUSY)
    runs = threading.Event()
    with opened(tiny_bundle, state=tmp_path) as runtime:
        endless = replace(QUICK, seconds=3600.0)
        monkeypatch.setattr("delen.daemon.build_model.QUICK", endless)
        network = runtime.runtime.load("tiny").network
        run = network.run

        def note(segment: int, samples: Any, lane: int = 0) -> Any:
            runs.set()
            return run(segment, samples, lane)

        monkeypatch.setattr(network, "run", note)
        runtime.profiler.start()
        assert runs.wait(60)
    assert not any(thread.name == "delen-profiler" for thread in threading.enumerate())
