"""What serving takes beside the segments, measured on an engine that serves a tiny bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from delen import Engine
from delen.bundle.manifest import load_bundle
from delen.daemon.build_runtime import open_runtime
from delen.daemon.config import config_of
from delen.engine.observer import Observer
from delen.engine.runtime import Runtime
from delen.measure.overhead import Effort, measure_host
from delen.profile.profile import Profile
from delen.profile.reader import load_profile
from delen.profile.store import save_profile
from delen.replay.in_process import FailureCount


def first_profile(bundle: Path, state: Path) -> Profile:
    """What an engine measures at its first start."""
    with Engine(bundle, state=state):
        (file,) = state.rglob("*.json")
        return load_profile(file)


def test_a_first_start_measures_what_serving_takes(tiny_bundle: Path, tmp_path: Path) -> None:
    profile = first_profile(tiny_bundle, tmp_path)
    host = profile.host
    assert profile.quick
    assert host is not None and host.stretch is not None
    assert 0 < host.request < 0.1
    assert 0 < host.batch + host.task + host.answer < 0.1
    assert host.stretch.p50 > 0.1


def test_a_profile_from_before_that_is_told_of(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = first_profile(tiny_bundle, tmp_path)
    (file,) = tmp_path.rglob("*.json")
    with caplog.at_level(logging.INFO, "delen"):
        with Engine(tiny_bundle, state=tmp_path):
            assert "delen profile" not in caplog.text
        save_profile(replace(known, host=None), file)
        with Engine(tiny_bundle, state=tmp_path):
            assert "what serving takes beside its segments: `delen profile`" in caplog.text


def test_a_first_start_is_not_bound_by_how_much_may_wait(tiny_bundle: Path, tmp_path: Path) -> None:
    config = config_of({"state.path": str(tmp_path), "server.max_backlog_seconds": 0.001})
    opened = open_runtime(config, FailureCount(), lambda: [tiny_bundle])
    try:
        host = opened.runtime.load("tiny").costs.profile.host
    finally:
        opened.close()
    assert host is not None and host.request > 0


def test_nothing_begins_once_the_time_is_over(tiny_bundle: Path, tmp_path: Path) -> None:
    profile, config = first_profile(tiny_bundle, tmp_path), config_of({"state.path": str(tmp_path)})
    left: list[int] = []

    @contextmanager
    def serve(observer: Observer) -> Iterator[Runtime]:
        opened = open_runtime(config, observer, lambda: [tiny_bundle])
        try:
            yield opened.runtime
            left.append(opened.runtime.jobs("tiny"))
        finally:
            opened.close()

    effort = Effort(rounds=10_000, seconds=-1.0)
    assert measure_host(serve, load_bundle(tiny_bundle), profile, effort) is None
    assert left == [0]
