from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from delen.daemon import build_model as assembly
from delen.daemon.build_model import Assembler, PolicySettings
from delen.engine.backends.onnx import OnnxBackend
from delen.errors import ConfigError
from delen.profile.profile import Profile
from delen.residency.lease import ALWAYS_RESIDENT
from delen.scheduler.core import Scheduler
from policies.dispatch.fifo import Fifo
from power.attribution.accounts import UnknownAccount


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
    monkeypatch.setattr(assembly, "find_plugin", lambda group, name: lambda exits: Undecided())
    assembler = Assembler(
        OnnxBackend("cpu", 1),
        NoEnergy(),
        PolicySettings("own"),
        lambda lanes: Scheduler(Fifo(), Fifo(), lanes),
        tmp_path,
        Path("/"),
    )
    bundle = assembler.open(tiny_bundle)
    for segment in range(3):
        bundle.load(segment)
    with pytest.raises(ConfigError, match="'own' must say in by_threshold"):
        bundle.complete(ALWAYS_RESIDENT, is_whole=True)


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
