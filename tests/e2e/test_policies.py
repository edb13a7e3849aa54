"""Exit and dispatch policies by name, on the shipped network."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen

if TYPE_CHECKING:
    from tests.builders.daemon import Launcher
    from tests.e2e.conftest import Gate

Image8 = NDArray[np.uint8]
NEVER = {"metric": "exit", "op": "null", "threshold": 0}


def _config(file: Path) -> dict[str, dict[str, Any]]:
    return {"policies": {"exit": "conditions", "conditions": str(file)}}


HOLDS = """
from policies.dispatch.published.edf import Edf
from delen.core.dispatch import Turn

class Holds(Edf):
    name = "holds"
    until = None

    def choose(self, now, waiting, figures):
        if self.until is None:
            self.until = now + 0.015
        if now < self.until:
            return Turn(wake=self.until)
        self.until = None
        return super().choose(now, waiting, figures)

    def runs_alone(self, now, task, models):
        return False
"""


@pytest.mark.parametrize("milliseconds", [20, 40])
def test_delens_own_condition_files_run_unchanged(
    launcher: Launcher,
    images: Image8,
    data: Path,
    milliseconds: int,
    install: Callable[..., None],
) -> None:
    """Each segment is held back for 15 ms, so that no exit but the first few is in time."""
    file = data / "profiles" / f"delen_conditions_{milliseconds}ms.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    install("delen.dispatch_policies", HOLDS, holds="Holds")
    config = _config(file)
    config["policies"]["dispatch"] = "holds"
    daemon = launcher.start(config)
    for image in images[:3]:
        answer = daemon.api.raw(image).json()
        assert answer["reason"] == "policy"
        assert answer["exit"] <= milliseconds // 15
        assert answer["receipt"]["latency_ms"]["value"] > milliseconds
    launcher.stop(daemon)


def test_compound_conditions_stop_where_they_hold(
    launcher: Launcher, images: Image8, tmp_path: Path
) -> None:
    def exit_is(number: int) -> dict[str, Any]:
        return {"metric": "exit", "op": "equal", "threshold": number}

    def confidence(op: str) -> dict[str, Any]:
        return {"metric": "confidence", "op": op, "threshold": 0.9}

    sure_here = {"op": "and", "conditions": [exit_is(1), confidence("greater_eq")]}
    contradiction = {"op": "and", "conditions": [exit_is(0), exit_is(1)]}
    always = {"op": "or", "conditions": [exit_is(9), confidence("less"), confidence("greater_eq")]}
    file = tmp_path / "conditions.json"
    file.write_text(json.dumps([contradiction, sure_here, always, NEVER, NEVER]))
    daemon = launcher.start(_config(file))
    exits = set()
    for image in images:
        answer = daemon.api.raw(image).json()
        assert answer["reason"] == "policy"
        exits.add(answer["exit"])
        if answer["exit"] == 1:
            assert answer["predictions"][0]["probability"] >= 0.9 - 1e-3
    assert exits == {1, 2}
    launcher.stop(daemon)


def test_a_job_for_which_no_condition_holds_still_has_its_answer(
    launcher: Launcher, images: Image8, tmp_path: Path
) -> None:
    file = tmp_path / "conditions.json"
    file.write_text(json.dumps([NEVER] * 4))
    daemon = launcher.start(_config(file))
    answer = daemon.api.raw(images[0]).json()
    assert answer["exit"] == daemon.api.deepest_useful()
    assert answer["predictions"][0]["label"]
    launcher.stop(daemon)


def test_bounds_hold_under_conditions_too(
    launcher: Launcher, images: Image8, tmp_path: Path
) -> None:
    file = tmp_path / "conditions.json"
    file.write_text(json.dumps([NEVER] * 5))
    daemon = launcher.start(_config(file))
    first = daemon.api.plan()["pareto"][0]
    answer = daemon.api.raw(images[0], max_energy_mj=1.02 * first["energy_mj"]).json()
    assert answer["exit"] == 0
    daemon.api.raw(images[0], max_latency_ms=1e-4).error(422, "infeasible_bound")
    launcher.stop(daemon)


def test_a_policy_without_thresholds_promises_no_accuracy(
    launcher: Launcher, images: Image8, tmp_path: Path
) -> None:
    file = tmp_path / "conditions.json"
    at_once = {"metric": "response_time", "op": "greater", "threshold": 0}
    file.write_text(json.dumps([at_once] * 5))
    daemon = launcher.start(_config(file))
    error = daemon.api.raw(images[0], min_accuracy=0.8).error(422, "infeasible_bound")
    assert "exit policy" in error["error"]
    assert error["nearest"]["min_accuracy"] is None
    effort = {"min_accuracy": 0.8, "on_infeasible": "best_effort"}
    for asked in ({}, effort):
        answer = daemon.api.raw(images[0], **asked).json()
        assert (answer["exit"], answer["reason"]) == (0, "policy")
        accuracy = answer["receipt"]["accuracy"]
        assert (accuracy["guarantee"], accuracy["expected"]) == (None, None)
        assert accuracy["met"] is (False if asked else None)
    launcher.stop(daemon)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([NEVER] * 3, "5 exits"),
        ([{**NEVER, "metric": "mood"}] * 5, "mood"),
        ("{", "conditions.json"),
        (None, "conditions.json"),
    ],
)
def test_a_wrong_condition_file_stops_the_daemon_with_the_reason(
    launcher: Launcher, tmp_path: Path, conditions: Any, said: str
) -> None:
    file = tmp_path / "conditions.json"
    if conditions is not None:
        file.write_text(conditions if conditions == "{" else json.dumps(conditions))
    ended = launcher.refused(_config(file))
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ({"exit": "conditions"}, "policies.conditions"),
        ({"conditions": "/some/file"}, "policies.exit"),
        ({"exit": "dice"}, "bounds"),
        ({"dispatch": "dice"}, "value"),
    ],
)
def test_settings_of_policies_that_do_not_fit_are_refused(
    launcher: Launcher, policies: dict[str, Any], said: str
) -> None:
    ended = launcher.refused({"policies": policies})
    assert ended.returncode == 2
    assert said in ended.stderr


# --- dispatch policies


def test_another_dispatch_policy_takes_effect(launcher: Launcher, images: Image8) -> None:
    daemon = launcher.start({"policies": {"dispatch": "delen"}})
    for asked in ({}, {"min_accuracy": 0.8}):
        answer = daemon.api.raw(images[0], **asked).json()
        assert (answer["exit"], answer["reason"]) == (answer["exits"] - 1, "final")
        assert answer["receipt"]["accuracy"]["met"] is (False if asked else None)
    launcher.stop(daemon)


PLUGIN = """
import time

class Broken:
    name = "broken"

    def __init__(self):
        self.calls = 0

    def choose(self, now, waiting, models):
        self.calls += 1
        if self.calls % 2:
            raise RuntimeError("no idea")
        return "whatever"

    def ran(self, now, ran):
        raise KeyError(ran.key)

    def ended(self, now, task):
        pass

class Lazy(Broken):
    name = "lazy"

    def choose(self, now, waiting, models):
        time.sleep(0.05)
        return None

    def ran(self, now, ran):
        pass

class Useless:
    name = "useless"

def unmade():
    raise OSError("no such device")
"""


@pytest.fixture
def plugin(install: Callable[..., None]) -> None:
    made = {"broken": "Broken", "lazy": "Lazy", "useless": "Useless", "unmade": "unmade"}
    install("delen.dispatch_policies", PLUGIN, **made)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("name", "logged"), [("broken", 2), ("lazy", 2)])
def test_a_dispatch_policy_that_fails_is_contained(
    launcher: Launcher, images: Image8, metric: Callable[..., float], name: str, logged: int
) -> None:
    daemon = launcher.start({"policies": {"dispatch": name}})
    assert metric(daemon.api, "delen_dispatch_failures_total") == 0
    answers = [daemon.api.raw(image, max_energy_mj=1e6).json() for image in images[:10]]
    assert {answer["exit"] for answer in answers} == {daemon.api.deepest_useful()}
    assert metric(daemon.api, "delen_dispatch_failures_total") >= 3
    assert 1 <= daemon.log().count(f"the dispatch policy '{name}' failed") <= logged
    assert "Traceback" not in daemon.log()
    assert daemon.terminate() == 0


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "said"), [("useless", "has no choose()"), ("unmade", "no such device")]
)
def test_a_dispatch_policy_that_cannot_be_one_is_refused(
    launcher: Launcher, name: str, said: str
) -> None:
    ended = launcher.refused({"policies": {"dispatch": name}})
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


SEGMENT_MS = 100_000
"""So long, by its profile, that no test's machine is ever slower."""


@pytest.fixture
def slow_device(tiny_bundle: Path, tmp_path: Path) -> dict[str, Any]:
    """The configuration of a daemon by whose profile a segment of one sample takes SEGMENT_MS, and
    one of n samples n times as long."""
    models = {"path": str(tiny_bundle.parent), "default": "tiny", "load": ["tiny"]}
    config = {"models": models, "state": {"path": str(tmp_path / "state")}}
    with delen.Engine(tiny_bundle, state=tmp_path / "state"):
        pass
    (file,) = (tmp_path / "state").rglob("*.json")
    profile = json.loads(file.read_text())
    for segment in profile["segments"]:
        for size, cost in segment["batches"].items():
            cost["latency_ms"] = dict.fromkeys(cost["latency_ms"], int(size) * SEGMENT_MS)
    profile["host"]["stretch"] = None
    profile["measured"]["busy"] = False  # else the daemon measures a calm one in its place
    file.write_text(json.dumps(profile))
    return config


def test_overload_makes_answers_shallower_before_it_refuses(
    launcher: Launcher, slow_device: dict[str, Any], gate: Gate, metric: Any, until: Any
) -> None:
    server = {"max_backlog_seconds": 3600.0}
    daemon = launcher.start({**slow_device, "server": server, "policies": gate.policies})
    api, image = daemon.api, np.zeros((4, 4, 1), np.uint8)
    gate.close()
    cap = {"max_latency_ms": 5.5 * SEGMENT_MS}
    with ThreadPoolExecutor(5) as clients:
        asked: list[Any] = []
        for number in range(1, 6):
            asked.append(clients.submit(api.raw, image, **cap))
            until(lambda number=number: metric(api, "delen_jobs") == number, "it is admitted")
        refused = api.raw(image, **cap)
        assert refused.error(503, "overloaded")["retry_after_s"] >= 0.99 * 5 * SEGMENT_MS / 1000
        assert int(refused.headers["Retry-After"]) >= refused.json()["retry_after_s"]
        gate.open()
        answers = [answer.result() for answer in asked]
    assert {answer.status for answer in answers} == {200}
    assert min(answer.json()["exit"] for answer in answers) == 0
    assert api.raw(image, **cap).json()["exit"] > 0, "nothing waits any more"
    launcher.stop(daemon)
