"""Energy from the sensor's files to the receipt: a daemon over a tree that a thread plays."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.nvpmodel import ModeTree
from tests.sensors import SensorTree, make_tree, play

IDLE, BUSY = 6.0, 10.0
BURST, PAUSE = 64, 0.2
"""Images at once, and seconds without any before them."""
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@dataclass
class Board:
    """A daemon, its state folder, and the sensor tree that it reads. The rails show BUSY watts
    while ``work`` is entered."""

    daemon: Any
    tree: SensorTree
    state: Path
    encode: Callable[..., bytes]
    busy: threading.Event = field(default_factory=threading.Event)

    def infer(self, **query: Any) -> Any:
        return self.daemon.api.raw(IMAGE, **query)

    @contextmanager
    def work(self, **query: Any) -> Iterator[list[str]]:
        """Ask for many images at once, again and again with pauses, and collect the answers' ids.
        All of them go to the deepest exit, and so keep the device busy until they are there."""
        done, ids = threading.Event(), list[str]()
        body = self.encode(np.stack([IMAGE] * BURST))
        query["max_latency_ms"] = 60_000

        def ask() -> None:
            while not done.wait(PAUSE):
                self.busy.set()
                answer = self.daemon.api.post(
                    "/v1/infer", body=body, content_type="application/x-npy", query=query
                )
                self.busy.clear()
                assert answer.status == 200, answer.body
                ids.extend(result["request_id"] for result in answer.json()["results"])

        with ThreadPoolExecutor(1) as asking:
            asked = asking.submit(ask)
            try:
                yield ids
            finally:
                done.set()
                asked.result()

    def power(self) -> dict[str, Any]:
        document: dict[str, Any] = self.daemon.api.get("/v1/power").json()
        return document

    def receipt(self, request_id: str) -> dict[str, Any]:
        answer = self.daemon.api.get(f"/v1/requests/{request_id}")
        assert answer.status == 200, answer.body
        document: dict[str, Any] = answer.json()
        return document

    def put(self, path: str, document: Any) -> Any:
        return self.daemon.api.request(
            "PUT", path, json.dumps(document).encode(), "application/json"
        )

    def constraint(self, name: str) -> dict[str, Any]:
        return next(each for each in self.power()["constraints"] if each["name"] == name)


@pytest.fixture(scope="module")
def board(
    launcher: Any,
    npy: Callable[..., bytes],
    own_state: Callable[[], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Board]:
    folder, state = tmp_path_factory.mktemp("board"), own_state()
    tree = make_tree(folder / "root", "orin-nx", {"VDD_IN": IDLE})
    busy = threading.Event()

    def watts(elapsed: float) -> float:
        return (BUSY if busy.is_set() else IDLE) + 0.02 * (int(20 * elapsed) % 2)

    with play(tree, lambda elapsed: tree.spread(watts(elapsed))):
        daemon = launcher.start(
            {
                "server": {"max_backlog_seconds": 1000.0},
                "power": {"root": str(tree.root)},
                "state": {"path": str(state)},
            }
        )
        yield Board(daemon, tree, state, npy, busy)
        launcher.stop(daemon)
    assert "Traceback" not in daemon.log(), daemon.log()


def test_the_sensor_was_chosen_by_a_reading_and_says_so(board: Board) -> None:
    power = board.power()
    assert (power["source"], power["scope"], power["kind"]) == (
        "ina3221",
        "module_input",
        "measured",
    )
    assert power["board"] == "Orin NX"
    assert power["rails"].keys() == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert "energy is measured by ina3221" in board.daemon.log()


def test_every_answers_energy_follows_and_sums_to_what_was_measured(
    board: Board, until: Callable[..., Any], metric: Callable[..., float]
) -> None:
    with board.work(tenant="sum") as ids:
        until(
            lambda: (window := board.power()["window"]) is not None
            and window["idle_j"] is not None
            and window["attributed_j"] > 0,
            "a measured window in which requests ran",
            120.0,
        )
        first = len(ids)
        until(lambda: len(ids) > first, "an answer after it")
    until(lambda: all(board.receipt(id)["settled"] for id in ids[-20:]), "the receipts settled")
    energies = [board.receipt(id)["receipt"]["energy_mj"] for id in ids]
    for energy in energies:
        assert energy["kind"] in ("attributed", "estimated")
        assert (energy["source"], energy["scope"]) == (
            ("ina3221", "module_input")
            if energy["kind"] == "attributed"
            else ("model", "processor")
        )
    tenant = board.daemon.api.get("/v1/tenants").json()["tenants"]["sum"]
    for kind in ("attributed", "estimated"):
        told = sum(energy["value"] for energy in energies if energy["kind"] == kind) / 1e3
        assert tenant["energy_j"][kind] == pytest.approx(told)
        assert metric(
            board.daemon.api, "delen_energy_joules_total", tenant="sum", kind=kind
        ) == pytest.approx(told)
    assert tenant["answers"] == len(ids)
    windows = board.daemon.api.get("/v1/power/history?seconds=3600").json()["windows"]
    measured = [window for window in windows if window["idle_j"] is not None]
    for window in measured:
        parts = window["attributed_j"] + window["idle_j"] + window["other_j"]
        assert parts == pytest.approx(window["watts"] * window["seconds"], rel=1e-9)
    told = sum(tenant["energy_j"].values())
    assert sum(window["attributed_j"] for window in windows) == pytest.approx(told)


def test_a_receipt_that_nobody_has_is_not_found(board: Board) -> None:
    board.daemon.api.get("/v1/requests/nobody-1").error(404, "not_found")


def test_a_sensor_that_fails_costs_the_measurement_and_no_answer(
    board: Board, until: Callable[..., Any]
) -> None:
    board.tree.fail(board.tree.path("VDD_IN", "current"))
    try:
        degraded = until(
            lambda: (power := board.power())["state"] == "degraded" and power, "degraded"
        )
        assert "curr1_input" in degraded["problem"]
        assert degraded["since_s"] >= 0
        assert (degraded["watts"], degraded["rails"]) == (None, {})
        assert degraded["errors"] > 0
        answer = board.infer(tenant="blind").json()
        last = until(lambda: (r := board.receipt(answer["request_id"]))["settled"] and r, "settled")
        assert last["receipt"]["energy_mj"]["kind"] == "estimated"
        assert last["receipt"]["energy_mj"]["value"] > 0
    finally:
        board.tree.heal()
    until(lambda: board.power()["state"] == "ok", "the sensor is back")


def test_a_tenants_budget_makes_answers_shallower_and_then_refuses(
    board: Board, until: Callable[..., Any]
) -> None:
    full = board.infer(tenant="fed", max_latency_ms=60_000).json()
    joules = full["receipt"]["energy_mj"]["value"] / 1e3
    budget = {"energy_budget": {"energy_j": 80 * joules, "period_s": 36000.0}}
    described = board.put("/v1/tenants/fed", budget).json()
    assert described["budget"]["energy_j"] == pytest.approx(80 * joules)
    exits = []

    def refused() -> Any:
        answer = board.infer(tenant="fed", max_latency_ms=60_000)
        if answer.status == 200:
            exits.append(answer.json()["exit"])
            return None
        return answer

    refusal = until(refused, "the budget is spent")
    document = refusal.error(429, "budget_exhausted")
    assert "fed" in document["error"]
    assert 0 < document["retry_after_s"] <= 36000
    assert int(refusal.headers["Retry-After"]) >= 1
    assert len(exits) > 10
    assert exits[0] == board.daemon.api.deepest_useful() > min(exits)
    assert board.infer(tenant="other").status == 200
    own = board.daemon.api.get("/v1/tenants").json()["tenants"]["fed"]
    assert own["refused"] == 1
    assert own["budget"]["balance_j"] < 80 * joules

    saved = json.loads((board.state / "tenants.json").read_text())["tenants"]["fed"]
    assert saved["energy_j"] == pytest.approx(80 * joules)
    taken = board.put("/v1/tenants/fed", {"energy_budget": None}).json()
    assert taken["budget"] is None
    assert board.infer(tenant="fed").status == 200


def test_a_watt_cap_holds_requests_back_and_says_why(
    board: Board, until: Callable[..., Any]
) -> None:
    until(lambda: board.power()["static_w"] is not None, "the idle power is known")
    answer = board.put("/v1/power", {"watt_cap_w": IDLE / 2})
    assert answer.status == 200, answer.body
    refusal = until(
        lambda: (answer := board.infer()).status == 503 and answer, "a request too much"
    )
    assert "watt cap" in refusal.error(503, "overloaded")["error"]
    assert board.constraint("watt_cap")["limit"] == IDLE / 2
    assert board.constraint("watt_cap")["headroom"] < 0
    board.put("/v1/power", {"watt_cap_w": None})
    assert board.infer().status == 200
    assert all(each["name"] != "watt_cap" for each in board.power()["constraints"])


def test_the_watt_cap_can_be_reloaded(board: Board) -> None:
    board.daemon.configure({"energy": {"watt_cap_w": 40.0}})
    assert "energy.watt_cap_w is now 40.0" in board.daemon.reload()
    assert board.constraint("watt_cap")["limit"] == 40.0
    board.daemon.configure({"energy": {"watt_cap_w": 0.0, "thermal_margin_c": 7.0}})
    assert "energy.thermal_margin_c changes at a restart only" in board.daemon.reload()
    assert all(each["name"] != "watt_cap" for each in board.power()["constraints"])


def test_a_power_mode_is_set_watched_and_put_back(
    launcher: Any, tmp_path: Path, tiny_bundle: Path, until: Callable[..., Any]
) -> None:
    tree = make_tree(tmp_path / "root", "orin-nx")
    modes = ModeTree(tree.root, mode=1)
    settings = {
        "power": {"root": str(tree.root), "switch_modes": True, "mode": "7W"},
        "state": {"path": str(tmp_path / "state")},
        "models": {"path": str(tiny_bundle.parent), "default": "tiny", "load": ["tiny"]},
    }

    def profile(daemon: Any) -> Any:
        return daemon.api.get("/v1/models/tiny").json()["profile"]

    daemon = launcher.start(settings)
    assert modes.mode == 2
    assert profile(daemon)["stale"] is None
    assert "7W" in profile(daemon)["device"]
    modes.set(0)
    stale = until(lambda: profile(daemon)["stale"], "the profile is stale")
    assert "MODE_7W" in stale
    assert "MAXN" in stale
    assert daemon.api.get("/v1/power").json()["mode"]["name"] == "MAXN"
    assert "the power mode changed from 2-MODE_7W" in daemon.log()
    refused = daemon.api.request(
        "PUT", "/v1/power", b'{"mode": "MODE_10W_1TPC"}', "application/json"
    )
    assert "reboot" in refused.error(503, "power_unavailable")["error"]
    switched = daemon.api.request("PUT", "/v1/power", b'{"mode": "MODE_7W"}', "application/json")
    assert switched.status == 200, switched.body
    until(lambda: profile(daemon)["stale"] is None, "the profile fits again")
    assert daemon.terminate() == 0
    assert modes.mode == 1


def test_a_mode_that_may_not_be_set_ends_the_daemon(launcher: Any, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "root", "orin-nx")
    ModeTree(tree.root)
    ended = launcher.refused({"power": {"root": str(tree.root), "mode": "MAXN"}})
    assert ended.returncode == 2
    assert "power.switch_modes = true" in ended.stderr


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        ({"battery_wh": 5.0}, "battery_wh and energy.battery_minutes go together"),
        ({"battery_wh": 1.0, "battery_minutes": 5.0, "battery_reserve_wh": 1.0}, "must be below"),
        ({"controller": "none"}, "delen.energy_controllers has no 'none'; installed: "),
    ],
)
def test_what_cannot_be_kept_is_no_configuration(
    launcher: Any, energy: dict[str, Any], message: str
) -> None:
    ended = launcher.refused({"energy": energy})
    assert ended.returncode == 2
    assert message in ended.stderr


def test_a_cap_without_a_source_is_no_configuration(launcher: Any) -> None:
    ended = launcher.refused({"energy": {"watt_cap_w": 5.0}, "power": {"source": "none"}})
    assert ended.returncode == 2
    assert "energy.watt_cap_w is 5, which power.source none cannot keep" in ended.stderr
