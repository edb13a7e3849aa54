"""Another dispatch policy for a daemon that serves."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.builders.daemon import Answer, Daemon, Launcher

ADDRESS = "/v1/policies"
Image8 = NDArray[np.uint8]


def put(daemon: Daemon, **change: object) -> Answer:
    return daemon.api.request("PUT", ADDRESS, json.dumps(change).encode(), "application/json")


def test_every_policy_takes_over_what_waits(daemon: Daemon, images: Image8) -> None:
    before = daemon.api.get(ADDRESS).json()
    assert (before["dispatch"], before["exit"], before["controller"]) == (
        "value",
        "bounds",
        "price",
    )
    try:
        with ThreadPoolExecutor(4) as pool:
            for name in before["installed"]["dispatch"]:
                waiting = [pool.submit(daemon.api.raw, image) for image in images[:8]]
                assert put(daemon, dispatch=name).json()["dispatch"] == name
                waiting += [pool.submit(daemon.api.raw, image) for image in images[:4]]
                assert {answer.result().status for answer in waiting} == {200}, name
    finally:
        assert put(daemon, dispatch="value").json()["dispatch"] == "value"
    assert daemon.api.raw(images[0]).json()["receipt"]["met"]


def test_what_is_wrong_changes_nothing(daemon: Daemon) -> None:
    error = put(daemon, dispatch="lifo").error(400, "invalid_input")
    assert error["field"] == "dispatch"
    assert "edf" in error["error"]
    put(daemon, dispatch="bcedge:/etc/passwd").error(400, "invalid_input")
    put(daemon, dispatch="edf", exit="bounds").error(400, "unknown_field")
    assert daemon.api.get(ADDRESS).json()["dispatch"] == "value"


def test_the_configured_policy_decides_again_with_its_file(
    launcher: Launcher, images: Image8, tmp_path: Path
) -> None:
    damaged = tmp_path / "learnt.npz"
    damaged.write_bytes(b"cut off")
    configured = f"bcedge:{damaged}"
    daemon = launcher.start({"policies": {"dispatch": configured}})
    assert f"policies.dispatch: {damaged} is damaged" in daemon.log(), "before it is asked"
    assert put(daemon, dispatch="edf").json()["dispatch"] == "edf"
    assert "the dispatch policy is edf now; it was bcedge:learnt" in daemon.log()
    other = f"bcedge:{tmp_path / 'other.npz'}"
    assert configured in put(daemon, dispatch=other).error(400, "invalid_input")["error"]
    assert put(daemon, dispatch=configured).json()["dispatch"] == "bcedge:learnt"
    assert f"the dispatch policy is {configured} now; it was edf" in daemon.log()
    assert daemon.log().count(f"policies.dispatch: {damaged} is damaged") == 2, "again"
    assert daemon.api.raw(images[0]).json()["receipt"]["met"], "the default decides where it fails"
