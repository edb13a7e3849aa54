from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.core.bounds import Bounds, Options
from delen.daemon import build_model
from delen.daemon.build_model import ModelBuilder, PolicySettings
from delen.daemon.build_runtime import open_runtime
from delen.daemon.config import config_of
from delen.energy.accounts import UnknownAccount
from delen.engine.backends.onnx import OnnxBackend
from delen.errors import ConfigError
from delen.profile.profile import Profile
from delen.profile.store import find_profile
from delen.replay.in_process import FailureCount
from delen.residency.lease import ALWAYS_RESIDENT
from delen.scheduler.core import Scheduler
from policies.dispatch.published.fifo import Fifo
from tests.nvpmodel import ModeTree
from tests.sensors import make_tree

PATIENCE = 60.0


class NoEnergy:
    mode = "default"

    def account(self, profile: Profile) -> UnknownAccount:
        return UnknownAccount()


class Undecided:
    """A policy that does not say whether it keeps to thresholds."""

    def decide(self, view: object) -> None: ...


def test_a_policy_has_to_say_whether_it_keeps_to_thresholds(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_model, "find_plugin", lambda group, name: lambda exits: Undecided())
    builder = ModelBuilder(
        OnnxBackend("cpu", 1),
        NoEnergy(),
        PolicySettings("own"),
        lambda lanes: Scheduler(Fifo(), Fifo(), lanes),
        tmp_path,
        Path("/"),
    )
    bundle = builder.open(tiny_bundle)
    for segment in range(3):
        bundle.load(segment)
    with pytest.raises(ConfigError, match="'own' must say in by_threshold"):
        bundle.complete(ALWAYS_RESIDENT, is_whole=True)
    monkeypatch.setattr(Undecided, "by_threshold", True, raising=False)
    monkeypatch.setattr(Undecided, "learn", lambda self, run: None, raising=False)
    with pytest.raises(ConfigError, match="'own' has learn, so it must have reports"):
        bundle.complete(ALWAYS_RESIDENT, is_whole=True)


@pytest.mark.usefixtures("brief_profile")
@pytest.mark.parametrize("exit", ["tuned", "apparate"])
def test_a_policy_that_learns_is_one_of_the_model(
    tiny_bundle: Path, tmp_path: Path, exit: str
) -> None:
    config = config_of({"policies.exit": exit, "state.path": str(tmp_path)})
    opened = open_runtime(config, FailureCount(), lambda: [tiny_bundle])
    try:
        opened.runtime.load("tiny")
        model = opened.runtime.store.ready("tiny")
        assert model.learner is not None and not model.monitor.has_departed
        job = opened.runtime.submit("tiny", np.zeros((4, 4, 1), np.uint8), Bounds(), Options())
        assert job.future.result(PATIENCE).exits == 3
    finally:
        opened.close()


def test_what_decodes_images_is_loaded_with_the_model(tiny_bundle: Path, tmp_path: Path) -> None:
    """Otherwise the first image pays for it, and a bound of 20 ms is refused."""
    code = (
        "import sys, delen\n"
        f"engine = delen.Engine({str(tiny_bundle)!r}, state={str(tmp_path)!r})\n"
        "loaded = {'PIL.PngImagePlugin', 'PIL.JpegImagePlugin'} <= set(sys.modules)\n"
        "engine.close()\n"
        "sys.exit(not loaded)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.usefixtures("brief_profile")
def test_requests_are_served_while_the_profile_of_another_power_mode_is_read(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    make_tree(root, "orin-nx")
    modes = ModeTree(root, mode=1)
    config = config_of({"power.root": str(root), "state.path": str(tmp_path / "state")})
    opened = open_runtime(config, FailureCount(), lambda: [tiny_bundle])
    exits: list[int] = []
    was_read = threading.Event()

    def find(*arguments: Any) -> Profile | None:
        job = opened.runtime.submit("tiny", np.zeros((4, 4, 1), np.uint8), Bounds(), Options())
        exits.append(job.future.result(PATIENCE).exits)
        was_read.set()
        return find_profile(*arguments)

    try:
        opened.runtime.load("tiny")
        monkeypatch.setattr("delen.daemon.profiles.find_profile", find)
        modes.set(2)
        assert was_read.wait(2 * PATIENCE)
    finally:
        opened.close()
    assert exits[0] == 3
