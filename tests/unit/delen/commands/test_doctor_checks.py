from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delen.commands.doctor_checks import (
    check_clocks,
    check_disk,
    check_memory,
    check_profile,
    check_provider,
    check_socket,
    lines_of,
)
from delen.engine.backends.base import Placement
from delen.errors import BackendError
from tests.nvpmodel import ModeTree


class FakeNetwork:
    placement = Placement("torch", "cuda", 1)

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at

    def blank(self, segment: int) -> int:
        return segment

    def run(self, segment: int, samples: Sequence[int]) -> None:
        if segment == self.fails_at:
            raise BackendError("no kernel image")


def test_a_provider_is_right_where_it_ran_every_segment() -> None:
    works: Any = FakeNetwork()
    assert check_provider(works, 3, "auto").state == "ok"
    fails: Any = FakeNetwork(fails_at=2)
    check = check_provider(fails, 3, "auto")
    assert (check.state, "no kernel image" in check.found) == ("wrong", True)
    assert check.remedy


def test_a_socket_says_who_may_connect(tmp_path: Path) -> None:
    file = tmp_path / "d.sock"
    assert check_socket(str(file), "").state == "ok"
    assert check_socket("", "").state == "ok"
    missing = check_socket(str(tmp_path / "no" / "d.sock"), "")
    assert (missing.state, str(tmp_path / "no") in missing.found) == ("wrong", True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file))
        assert check_socket(str(file), "").state == "unknown"
        listener.listen()
        file.chmod(0o660)
        found = check_socket(str(file), "")
        assert found.state == "ok" and "0660" in found.found


def test_clocks_are_compared_with_the_mode_that_nvpmodel_names(tmp_path: Path) -> None:
    assert check_clocks(tmp_path).state == "unknown"
    modes = ModeTree(tmp_path, 1)
    assert check_clocks(tmp_path).state == "ok"
    modes.write("sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", 1984000)
    check = check_clocks(tmp_path)
    assert (check.state, "MODE_15W" in check.found) == ("wrong", True)
    assert check.remedy and "nvpmodel -m 1" in check.remedy
    modes.write("var/lib/nvpmodel/status", "pmode:0009 fmode:quiet")
    assert check_clocks(tmp_path).state == "wrong"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("MemTotal: 9 kB\nMemAvailable: 4000000 kB\n", "ok"),
        ("MemAvailable: 300000 kB\n", "wrong"),
        ("MemTotal: 9 kB\n", "unknown"),
    ],
)
def test_memory_is_enough_for_the_model_or_not(tmp_path: Path, text: str, state: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert check_memory(100e6, tmp_path / "meminfo").state == state
    assert check_memory(100e6, tmp_path / "none").state == "unknown"


def test_a_state_folder_that_cannot_be_made_is_wrong(tmp_path: Path) -> None:
    assert check_disk(tmp_path / "a" / "b").state == "ok"
    (tmp_path / "file").touch()
    assert check_disk(tmp_path / "file" / "state").state == "wrong"


def test_a_profile_is_wrong_when_it_is_old_or_of_a_busy_machine() -> None:
    bundle: Any = SimpleNamespace(name="m")

    def state(days: float, busy: bool = False) -> str:
        moment = datetime.now(timezone.utc) - timedelta(days=days)
        created = moment.isoformat(timespec="seconds")
        profile: Any = SimpleNamespace(created=created, busy=busy, measured=None)
        return check_profile(profile, bundle).state

    assert (state(1), state(1, busy=True), state(400)) == ("ok", "wrong", "wrong")
    assert check_profile(None, bundle).state == "unknown"


def test_remedies_stand_below_what_they_help() -> None:
    check = {"name": "disk", "state": "wrong", "found": "full", "remedy": "make room"}
    assert lines_of([check]) == ["!! disk      full", "             remedy: make room"]
