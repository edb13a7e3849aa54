"""Which model is blamed for a crash of the daemon, and what follows of that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from delen.core.crash_guard import FIRST_LANE
from delen.daemon.crashes import IN_A_ROW, SETTLED, CrashLog

CRASHING = f"""
import ctypes, os, signal, sys, threading
from pathlib import Path
from delen.daemon.crashes import CrashLog

crashes = CrashLog(Path(sys.argv[1]))
crashes.watch()
start = threading.Barrier(2)
def run():
    crashes.began({FIRST_LANE + 1}, "beside")
    start.wait()
    if sys.argv[2] == "beside":
        ctypes.string_at(0)
    start.wait()
threading.Thread(target=run, daemon=True).start()
start.wait()
if sys.argv[2] != "elsewhere":
    crashes.began({FIRST_LANE}, "guilty@32x32")
if sys.argv[2] == "beside":
    start.wait()
if sys.argv[2] == "foreign":  # a thread of native code
    libc = ctypes.CDLL(None)
    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.abort, None)
    threading.Event().wait(60)
os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


def crash(state: Path, who: str = "guilty", by: str = "SIGSEGV") -> None:
    subprocess.run([sys.executable, "-c", CRASHING, str(state), who, by])


def blamed(state: Path) -> dict[str, int]:
    file = state / "crashes.json"
    if not file.exists():
        return {}
    return {name: each["times"] for name, each in json.loads(file.read_text())["models"].items()}


@pytest.mark.parametrize(
    ("who", "by", "models"),
    [
        ("guilty", "SIGSEGV", {"guilty": 1}),
        ("guilty", "SIGABRT", {"guilty": 1}),
        ("beside", "SIGSEGV", {"beside": 1}),
        ("elsewhere", "SIGSEGV", {}),
        ("foreign", "SIGABRT", {"beside": 1, "guilty": 1}),
        ("guilty", "SIGKILL", {}),
        ("guilty", "SIGTERM", {}),
    ],
)
def test_the_model_of_the_thread_that_crashed_is_blamed(
    who: str, by: str, models: dict[str, int], tmp_path: Path
) -> None:
    crash(tmp_path, who, by)
    CrashLog(tmp_path)
    assert blamed(tmp_path) == models
    CrashLog(tmp_path)
    assert blamed(tmp_path) == models, "a crash counts once"


def test_crashes_in_a_row_lead_to_a_quarantine_that_lasts_until_it_is_lifted(
    tmp_path: Path,
) -> None:
    crashes = CrashLog(tmp_path)
    for _ in range(IN_A_ROW - 1):
        crashes.blame(["a"], "Aborted")
    crashes.blame(["b"], "Aborted")
    assert crashes.reason("a") is None, "another one came between"
    for _ in range(IN_A_ROW):
        assert crashes.reason("a") is None
        crashes.blame(["a"], "Aborted")
    crashes.blame(["b"], "Aborted")
    again = CrashLog(tmp_path)
    assert "Aborted" in str(again.reason("a"))
    again.look(SETTLED + 1e9)
    assert blamed(tmp_path) == {"a": IN_A_ROW}, "b has settled"
    again.release("a")
    assert again.reason("a") is None
    assert CrashLog(tmp_path).reason("a") is None


def test_what_cannot_be_read_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "crashes.json"
    file.write_text("{")
    assert CrashLog(tmp_path).reason("a") is None
    assert str(file) in caplog.text
    assert (tmp_path / "crashes.json.damaged-1").read_text() == "{"


def test_nobody_is_blamed_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = tmp_path / "file" / "state"
    crash(state)
    crashes = CrashLog(state)
    crashes.blame(["a"], "Aborted")
    assert blamed(state) == {}
