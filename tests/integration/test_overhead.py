"""What serving takes beside the segments, measured with requests to a tiny bundle."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delen import Engine
from delen.bundle.manifest import load_bundle
from delen.core.bounds import Bounds, Options
from delen.daemon.build_model import ModelBuilder
from delen.daemon.build_runtime import Opened, open_runtime
from delen.daemon.config import config_of
from delen.engine.executor import Executor
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.measure.disturbance import GaveWay
from delen.measure.overhead import Effort, measure_host
from delen.profile.cost_model import CostModel
from delen.profile.profile import Profile
from delen.profile.reader import load_profile
from delen.profile.store import save_profile
from delen.replay.in_process import FailureCount
from delen.scheduler.core import Scheduler
from policies.dispatch.published.fifo import Fifo


def first_profile(bundle: Path, state: Path) -> Profile:
    """What an engine measures at its first start."""
    with Engine(bundle, state=state):
        (file,) = state.rglob("*.json")
        return load_profile(file)


@contextmanager
def opened(bundle: Path, state: Path, **settings: object) -> Iterator[Opened]:
    config = config_of({"state.path": str(state), "device.threads": 1, **settings})
    runtime = open_runtime(config, FailureCount(), lambda: [bundle])
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def model(tiny_bundle: Path, tmp_path: Path) -> Iterator[Model]:
    """A model whose profile says nothing of what serving takes."""
    with opened(tiny_bundle, tmp_path) as runtime:
        known = runtime.runtime.load("tiny")
        costs, bare = known.costs, replace(known.costs.profile, host=None)
        yield replace(known, costs=CostModel(bare, costs.energy, costs.level))


def new_scheduler() -> Scheduler:
    return Scheduler(Fifo(), Fifo())


def test_a_first_start_measures_what_serving_takes(tiny_bundle: Path, tmp_path: Path) -> None:
    profile = first_profile(tiny_bundle, tmp_path)
    host = profile.host
    assert profile.quick
    assert host is not None and host.stretch is not None
    assert 0 < host.request < 0.1
    assert 0 < host.batch + host.task + host.answer < 0.1
    assert host.stretch.p50 > 0.1


def test_a_first_start_makes_no_runtime_but_its_own(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Runtime] = []
    original = Runtime.__init__

    def note(self: Runtime, *arguments: object) -> None:
        made.append(self)
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Runtime, "__init__", note)
    assert first_profile(tiny_bundle, tmp_path).host is not None
    assert len(made) == 1


def test_a_profile_from_before_that_is_told_of(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = replace(first_profile(tiny_bundle, tmp_path), measured=None)
    (file,) = tmp_path.rglob("*.json")
    save_profile(known, file)
    with caplog.at_level(logging.INFO, "delen"):
        caplog.clear()
        with Engine(tiny_bundle, state=tmp_path):
            assert "delen profile" not in caplog.text
        save_profile(replace(known, host=None), file)
        with Engine(tiny_bundle, state=tmp_path):
            assert "what serving takes beside its segments: `delen profile`" in caplog.text


def test_a_first_start_is_not_bound_by_how_much_may_wait(tiny_bundle: Path, tmp_path: Path) -> None:
    limit = {"server.max_backlog_seconds": 0.001}
    with opened(tiny_bundle, tmp_path, **limit) as runtime:
        host = runtime.load("tiny").costs.profile.host
    assert host is not None and host.request > 0


def test_several_lanes_are_measured_as_one(tiny_bundle: Path, tmp_path: Path) -> None:
    with opened(tiny_bundle, tmp_path, **{"device.instances": 2}) as runtime:
        host = runtime.load("tiny").costs.profile.host
    assert host is not None and host.batch + host.task + host.answer > 0


@pytest.mark.usefixtures("brief_profile")
def test_a_load_into_a_running_daemon_leaves_that_for_later(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No executor starts beside the one that serves while a model is loaded."""
    with opened(tiny_bundle, tmp_path) as runtime:
        made: list[Executor] = []
        original = Executor.__init__

        def note(self: Executor, *arguments: object) -> None:
            made.append(self)
            original(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Executor, "__init__", note)
        profile = runtime.runtime.load("tiny").costs.profile
        (file,) = tmp_path.rglob("*.json")
    assert not made
    assert profile.host is None
    assert load_profile(file).host is None


@pytest.mark.usefixtures("brief_profile")
def test_requests_that_are_queued_or_running_keep_a_runtime_from_being_idle(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tiny_bundle, tmp_path) as runtime:
        engine = runtime.runtime
        network = engine.load("tiny").network
        before = engine.idle_since
        assert before is not None
        runs, may_end = threading.Event(), threading.Event()
        run = network.run

        def block(*arguments: object) -> object:
            runs.set()
            may_end.wait(60)
            return run(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(network, "run", block)
        job = engine.submit("tiny", np.zeros((4, 4, 1), np.uint8), Bounds(), Options())
        assert runs.wait(60)
        assert engine.idle_since is None
        may_end.set()
        job.future.result(60)
        assert engine.idle_since is not None and engine.idle_since > before


def test_nothing_begins_once_the_time_is_over(model: Model) -> None:
    assert measure_host(model, new_scheduler(), Effort(rounds=10_000, seconds=-1.0)) is None


@pytest.mark.parametrize("before", [0, 1, 7])
def test_it_gives_way_at_the_next_segments_end(
    model: Model, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    run = model.network.run

    def note(segment: int, *rest: object) -> object:
        ran.append(segment)
        return run(segment, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model.network, "run", note)
    threads = threading.active_count()
    with pytest.raises(GaveWay):
        measure_host(model, new_scheduler(), Effort(1, 60.0), lambda: len(ran) >= before)
    assert before <= len(ran) <= before + 1
    assert threading.active_count() == threads


def test_a_policy_that_plans_nothing_is_measured_too(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = new_scheduler()
    capabilities = replace(scheduler.capabilities, plans=False)
    monkeypatch.setattr(Scheduler, "capabilities", property(lambda self: capabilities))
    host = measure_host(model, scheduler, Effort(3, 60.0))
    assert host is not None and host.request > 0


def test_a_builder_measures_a_profile_that_serves_nobody(
    tiny_bundle: Path, tmp_path: Path, make_profile: Callable[..., Profile]
) -> None:
    """As ``delen profile`` does."""
    bundle = load_bundle(tiny_bundle)
    with opened(tiny_bundle, tmp_path) as runtime:
        builder: ModelBuilder = runtime.profiler._builder
        network = builder.open(tiny_bundle).network
        for segment in range(3):
            network.load(segment)
        account = runtime.runtime.load("tiny").costs.energy
        bare = replace(make_profile(1e-4, 1e-4, 1e-4), quick=True)
        measured = builder.with_host(bundle, network, bare, account)
    assert measured.host is not None and measured.host.request > 0
    assert measured.segments == bare.segments
