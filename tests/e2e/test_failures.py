"""Segments that fail, lanes that die and policies that hang, in a real daemon."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.broken_backend import BrokenBackend
from delen.daemon.crashes import IN_A_ROW
from tests.builders.daemon import DEADLINE

if TYPE_CHECKING:
    from tests.builders.daemon import Launcher

Image8 = NDArray[np.uint8]
DAEMON = str(Path(sys.executable).parent / "delen-daemon")

TINY_IMAGE = np.zeros((4, 4, 1), np.uint8)

HANGS = """
import time

class Hangs:
    name = "hangs"

    def choose(self, now, waiting, models):
        time.sleep(3600)

    def ran(self, now, ran):
        pass

    def ended(self, now, task):
        pass
"""


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrokenBackend:
    """What the daemons that a test starts run their segments on."""
    broken = BrokenBackend(tmp_path)
    for name, value in broken.environment.items():
        monkeypatch.setenv(name, value)
    return broken


def test_a_segment_that_fails_leaves_the_answer_before_it(
    launcher: Launcher,
    backend: BrokenBackend,
    images: Image8,
    metric: Callable[..., float],
    until: Any,
) -> None:
    daemon = launcher.start()
    backend.start("raise", segment=1)
    bounds = {"min_accuracy": 0.91}
    answers = [daemon.api.raw(image, **bounds).json() for image in images[:12]]
    failed = [answer for answer in answers if answer["reason"] == "failed"]
    assert len(failed) >= 3
    for answer in failed:
        assert answer["exit"] == 0
        assert answer["receipt"]["accuracy"]["met"] is False
    assert metric(daemon.api, "delen_answers_total", reason="failed") == len(failed)
    assert metric(daemon.api, "delen_segment_failures_total", segment="1") == len(failed)
    assert daemon.log().count("segment 1 of cifar10-resnet@32x32 failed") == 1
    health = daemon.api.get("/healthz")
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert "segment 1 of cifar10-resnet" in health.json()["problems"][0]
    backend.mend()
    until(
        lambda: [daemon.api.raw(image, **bounds) for image in images]
        and daemon.api.get("/healthz").json()["status"] == "ok",
        "it works again",
    )
    assert daemon.terminate() == 0


def test_a_lane_that_dies_ends_the_daemon(
    launcher: Launcher, backend: BrokenBackend, images: Image8
) -> None:
    daemon = launcher.start()
    backend.start("exit")
    daemon.api.raw(images[0]).error(500, "backend_failed")
    assert daemon.process.wait(60) == 1
    assert "the thread delen-lane-0 has died" in daemon.log()


def test_a_segment_that_hangs_holds_up_no_other_model(
    launcher: Launcher, backend: BrokenBackend, bundles: Path, images: Image8, until: Any
) -> None:
    models = {"path": str(bundles), "load": ["cifar10-resnet", "second"]}
    daemon = launcher.start({"models": models, "device": {"hang_seconds": 0.3}})
    api, second = daemon.api, "/v1/models/second/infer"
    assert api.get("/readyz").json()["problems"] == []
    backend.start("hang", "second", segment=1)
    *answers, refused = [api.raw(image, second, min_accuracy=0.91) for image in images[:12]]
    cut = [answer.json() for answer in answers if answer.status == 200][-1]
    assert (cut["exit"], cut["reason"]) == (0, "failed")
    assert "second" in refused.error(503, "model_loading")["error"]
    assert int(refused.headers["Retry-After"]) >= 1
    api.post("/v1/models/second/unload").error(503, "overloaded")
    assert api.raw(images[0]).status == 200
    ready, health = api.get("/readyz"), api.get("/healthz")
    assert (ready.status, health.status, health.json()["status"]) == (200, 200, "degraded")
    assert "segment 1 of second" in ready.json()["problems"][0]
    assert "second" in api.get("/v1/models/second").json()["problem"]
    backend.start("hang")
    until(lambda: api.raw(images[0]).status == 503, "the default model is refused, too")
    assert "cifar10-resnet" in api.get("/readyz").error(503, "model_loading")["error"]
    assert api.get("/healthz").json()["status"] == "failing"
    backend.mend()
    until(lambda: api.get("/healthz").json()["status"] == "ok", "all segments have returned")
    assert api.raw(images[0], second).status == api.raw(images[0]).status == 200
    assert daemon.terminate() == 0


def test_a_model_that_crashes_the_daemon_again_and_again_is_left_out(
    launcher: Launcher,
    backend: BrokenBackend,
    write_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    for name in ("sound", "rotten"):
        write_bundle(tmp_path / "bundles" / name, name=name)
    models = {"path": str(tmp_path / "bundles"), "default": "sound", "load": ["sound", "rotten"]}
    config = {"models": models, "state": {"path": str(tmp_path / "state")}}
    rotten = "/v1/models/rotten/infer"
    for _ in range(IN_A_ROW):
        daemon = launcher.start(config)
        assert daemon.api.raw(TINY_IMAGE).status == 200
        backend.start("crash", "rotten")
        with pytest.raises(OSError):
            daemon.api.raw(TINY_IMAGE, rotten)
        assert daemon.process.wait(DEADLINE) == -signal.SIGSEGV
        backend.mend()
    daemon = launcher.start(config)
    assert "Segmentation fault" in daemon.log()
    assert daemon.api.raw(TINY_IMAGE).status == 200
    assert "Segmentation" in daemon.api.raw(TINY_IMAGE, rotten).error(503, "model_loading")["error"]
    model = daemon.api.get("/v1/models/rotten").json()
    assert (model["state"], "quarantine" in model["problem"]) == ("failed", True)
    assert daemon.api.post("/v1/models/rotten/load").status == 200
    assert daemon.api.raw(TINY_IMAGE, rotten).status == 200
    assert daemon.terminate() == 0


def test_a_policy_that_hangs_is_told_and_does_not_hold_up_the_end(
    launcher: Launcher, install: Callable[..., None], images: Image8, until: Any
) -> None:
    launcher.stop(launcher.start())  # which keeps the profile
    install("delen.dispatch_policies", HANGS, hangs="Hangs")
    server = {"drain_seconds": 0.5}
    daemon = launcher.start({"policies": {"dispatch": "hangs"}, "server": server})
    assert daemon.api.get("/healthz").json()["status"] == "ok"
    connection = daemon.api.connect()
    headers = {"Content-Type": "application/octet-stream"}
    connection.request("POST", "/v1/infer", images[0].tobytes(), headers)
    until(lambda: daemon.api.get("/healthz").status == 503, "healthz fails")
    told = daemon.api.get("/healthz").json()
    assert told["status"] == "failing"
    assert "dispatch policy" in told["problems"][0]
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(30) == 1
    assert "the dispatch policy has not returned" in daemon.log()


def test_a_policy_that_hangs_at_the_first_start_does_not_hold_up_the_end(
    install: Callable[..., None], environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    install("delen.dispatch_policies", HANGS, hangs="Hangs")
    variables = environment(
        DELEN_SERVER__PORT="0",
        DELEN_SERVER__SOCKET="",
        DELEN_SERVER__DRAIN_SECONDS="0.5",
        DELEN_POLICIES__DISPATCH="hangs",
        DELEN_STATE__PATH=str(tmp_path / "state"),
    )
    with subprocess.Popen([DAEMON], env=variables, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "cifar10-resnet 1:" in line:  # it is loaded; what serving takes is measured next
                break
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) in (0, 1)
