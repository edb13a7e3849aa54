"""Daemons whose memory does not hold all that they serve."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.builders.daemon import wait_until

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

Image8 = NDArray[np.uint8]

SECOND = "/v1/models/second"
TO_THE_LAST = {"max_latency_ms": 20_000}
TINY_IMAGE = np.zeros((4, 4, 1), np.uint8)


@pytest.fixture(scope="module")
def shared(launcher: Launcher, bundles: Path, daemon: Daemon) -> Iterator[Daemon]:
    """Both copies of the shipped model take 75 MB; this one has 56. The daemon that all tests share
    measures the profiles."""
    for verb in ("load", "unload"):
        assert daemon.api.post(f"{SECOND}/{verb}").status == 200
    shared = launcher.start({"models": {"path": str(bundles), "memory_mb": 56}})
    yield shared
    assert shared.terminate() == 0
    assert "Traceback" not in shared.log(), shared.log()


@pytest.fixture(scope="module")
def small(launcher: Launcher, daemon: Daemon) -> Iterator[Daemon]:
    """A cap that holds four of the five segments of the shipped model."""
    small = launcher.start({"models": {"memory_mb": 30}})
    yield small
    assert small.terminate() == 0
    assert "Traceback" not in small.log(), small.log()


def states(api: Api, path: str) -> list[str]:
    return [segment["state"] for segment in api.get(path).json()["memory"]["segments"]]


def test_models_take_turns_in_memory_and_answer_as_before(
    shared: Daemon, image: Image8, metric: Callable[..., float]
) -> None:
    api = shared.api
    answers: list[Any] = []
    for _ in range(3):
        for path in ("/v1/infer", f"{SECOND}/infer"):
            answer = api.raw(image, path, **TO_THE_LAST)
            assert answer.status == 200, answer.body
            answers.append(answer.json())
            memory = api.get(SECOND).json()["memory"]
            assert memory["all_models_mb"] <= memory["cap_mb"] == 56
    assert {answer["exit"] for answer in answers} == {4}
    assert len({answer["predictions"][0]["probability"] for answer in answers}) == 1
    assert metric(api, "delen_segment_evictions_total") > 0
    assert metric(api, "delen_segment_loads_total") > 10
    assert metric(api, "delen_segment_load_seconds_total") > 0
    assert metric(api, "delen_memory_taken_bytes") <= metric(api, "delen_memory_cap_bytes") == 56e6
    resident = metric(api, "delen_resident_bytes", model="second")
    assert resident == pytest.approx(1e6 * api.get(SECOND).json()["memory"]["resident_mb"])


def test_an_unloaded_model_is_loaded_by_the_next_request(shared: Daemon, image: Image8) -> None:
    api = shared.api
    assert api.post(f"{SECOND}/unload").json()["state"] == "unloaded"
    assert states(api, SECOND) == ["absent"] * 5
    hurried = api.raw(image, f"{SECOND}/infer", max_latency_ms=1)
    error = hurried.error(503, "model_loading")
    assert int(hurried.headers["Retry-After"]) >= error["retry_after_s"] > 0
    assert api.raw(image, f"{SECOND}/infer").status == 200
    assert api.get(SECOND).json()["state"] == "ready"


def test_a_small_cap_serves_the_first_exits_and_says_so(small: Daemon, image: Image8) -> None:
    api = small.api
    answer = api.raw(image, **TO_THE_LAST).json()
    assert (answer["exit"], answer["receipt"]["met"]) == (3, True)
    assert api.plan()["limited_by"] == "memory"
    path = "/v1/models/cifar10-resnet"
    assert states(api, path) == ["resident"] * 4 + ["absent"]
    assert api.get(path).json()["state"] == "ready"
    floor = 0.9
    refused = api.raw(image, min_accuracy=floor).error(422, "infeasible_bound")
    assert "memory" in refused["error"]
    nearest = refused["nearest"]["min_accuracy"]
    kept = api.raw(image, min_accuracy=nearest).json()
    assert kept["exit"] <= 3 and kept["receipt"]["accuracy"]["met"]


PLUGIN = """
from policies.exit.bounds import BoundsPolicy

def waiting(exits):
    if exits != 5:
        open({pipe!r}, "rb").read()
    return BoundsPolicy()
"""


def test_requests_that_wait_for_a_model_keep_no_other_address_from_answering(
    launcher: Launcher,
    write_bundle: Callable[..., Path],
    install: Callable[..., None],
    tmp_path: Path,
) -> None:
    """The exit policy of one model is made once its pipe was written."""
    pipe, bundles = tmp_path / "pipe", tmp_path / "bundles"
    os.mkfifo(pipe)
    bundles.mkdir()
    write_bundle(bundles / "held", name="held")
    install("delen.exit_policies", PLUGIN.format(pipe=str(pipe)), waiting="waiting")
    models = {"memory_mb": 100, "path": str(bundles)}
    config = {"models": models, "server": {"threads": 1}, "policies": {"exit": "waiting"}}
    daemon = launcher.start(config)

    def writer() -> int | None:
        with suppress(OSError):  # nobody reads yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return None

    with ThreadPoolExecutor(2) as clients:
        path = "/v1/models/held/infer"
        waiting = [clients.submit(daemon.api.raw, TINY_IMAGE, path) for _ in range(2)]
        written = wait_until(writer, "the bundle is being opened")
        try:
            assert daemon.api.get("/v1/models/held").json()["state"] == "loading"
            assert not any(answer.done() for answer in waiting)
        finally:
            os.close(written)
        assert {answer.result().status for answer in waiting} == {200}
    assert daemon.terminate() == 0


def test_a_cap_below_the_first_segment_is_refused_at_start(
    launcher: Launcher, daemon: Daemon
) -> None:
    ended = launcher.refused({"models": {"memory_mb": 1}})
    assert ended.returncode == 2
    assert "models.memory_mb is 1: the first segment of cifar10-resnet takes 4.5" in ended.stderr


def test_without_a_cap_nothing_is_said_of_memory(api: Api, metric: Callable[..., float]) -> None:
    assert "memory" not in api.get("/v1/models/cifar10-resnet").json()
    assert metric(api, "delen_memory_cap_bytes") == 0
