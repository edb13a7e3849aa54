"""``delen bench`` against a daemon, as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher

Start = Callable[..., "subprocess.Popen[str]"]
SECONDS = 120
ROWS = 30


@pytest.fixture
def start(environment: Callable[..., dict[str, str]], tmp_path: Path) -> Iterator[Start]:
    """Starts ``delen bench``; what still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def bench(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "delen"), "bench", *map(str, arguments)],
            env=environment(),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield bench
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """1.5 s of three tenants in turn: one with a cap nobody misses, one with none, and one whose
    cap nothing can keep."""
    rows = ["camera,left,60000", "phone,,", "dreamer,,0.001"]
    return _write(tmp_path / "trace.csv", [f"{0.05 * n:.2f},{rows[n % 3]}" for n in range(ROWS)])


@pytest.fixture
def long_trace(tmp_path: Path) -> Path:
    """Ten minutes."""
    return _write(tmp_path / "long.csv", [f"{0.05 * n:.2f},runner,," for n in range(12_000)])


def _write(file: Path, rows: list[str]) -> Path:
    file.write_text("\n".join(["time_s,tenant,stream,max_latency_ms", *rows]) + "\n")
    return file


@pytest.fixture
def wait_for_answers(until: Callable[..., Any], metric: Callable[..., float]) -> Any:
    """Until the daemon has given ``tenant`` some answers."""
    return lambda daemon, tenant: until(
        lambda: metric(daemon.api, "delen_answers_total", tenant=tenant) >= 5,
        f"five answers for {tenant}",
        SECONDS,
    )


def test_a_trace_is_replayed(
    start: Start, daemon: Daemon, trace: Path, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    np.savez(tmp_path / "x.npz", inputs=images, labels=np.arange(len(images)) % 10)
    bench = start("--url", daemon.url, "--trace", trace, "--inputs", "x.npz", "--json")
    out, err = bench.communicate(timeout=SECONDS)
    assert (bench.returncode, err) == (0, "")
    summary: dict[str, Any] = json.loads(out)
    assert (summary["requests"], summary["answered"], summary["refused"]) == (30, 20, 10)
    tenants = summary["tenants"]
    assert {name: row["answered"] for name, row in tenants.items()} == {
        "camera": 10,
        "phone": 10,
        "dreamer": 0,
    }
    assert tenants["dreamer"]["refused_why"] == {"bounds": 10, "load": 0, "given_up": 0}
    assert tenants["dreamer"]["effective_accuracy"] == 0.0
    assert summary["missed"] == {"latency": 0, "accuracy": 0, "energy": 0}
    assert sum(summary["exits"]) == pytest.approx(1.0)
    assert summary["accuracy_kind"] == "measured"
    assert summary["client"]["ended"] == {"answered": 20, "infeasible_bound": 10}


def test_the_unix_socket_will_do_and_the_table_is_the_simulators(
    start: Start, daemon: Daemon, trace: Path
) -> None:
    assert daemon.unix_url is not None
    options = ("--speed", "4", "--best-effort", "--label", "mine", "--clock", "client")
    bench = start("--url", daemon.unix_url, "--trace", trace, *options)
    out, err = bench.communicate(timeout=SECONDS)
    assert bench.returncode == 0, err
    head, columns, row, *_ = out.splitlines()
    assert head.startswith("30 requests, 3 tenants")
    assert columns.split()[:2] == ["policy", "effective"]
    assert row.split()[0] == "mine"
    assert "mine: accuracy expected" in out and "30 answered" in out
    assert "random inputs" in err


def test_ctrl_c_prints_what_was_done(
    start: Start, daemon: Daemon, long_trace: Path, wait_for_answers: Any
) -> None:
    bench = start("--url", daemon.url, "--trace", long_trace, "--json")
    wait_for_answers(daemon, "runner")
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate(timeout=SECONDS)
    assert bench.returncode == 130, err
    summary = json.loads(out)
    assert 0 < summary["requests"] < 12_000
    assert not summary["complete"]
    assert "Traceback" not in err


def test_a_daemon_that_goes_away_ends_it(
    start: Start, launcher: Launcher, long_trace: Path, wait_for_answers: Any
) -> None:
    daemon = launcher.start()
    bench = start("--url", daemon.url, "--trace", long_trace, "--json")
    wait_for_answers(daemon, "runner")
    daemon.process.kill()
    out, err = bench.communicate(timeout=SECONDS)
    assert bench.returncode == 1
    assert "no daemon answers at" in err and "Traceback" not in err
    summary = json.loads(out)
    assert 0 < summary["answered"] <= summary["requests"] < 12_000


def test_nobody_there_and_wrong_inputs_are_told(
    start: Start, daemon: Daemon, trace: Path, tmp_path: Path, closed_url: str
) -> None:
    nobody = start("--url", closed_url, "--trace", trace)
    out, err = nobody.communicate(timeout=SECONDS)
    assert (nobody.returncode, out) == (1, "")
    assert "no daemon answers at" in err
    np.save(tmp_path / "x.npy", np.zeros((3, 3), np.uint8))
    wrong = start("--url", daemon.url, "--trace", trace, "--inputs", "x.npy")
    assert "accepts uint8 [32, 32, 3]" in wrong.communicate(timeout=SECONDS)[1]
    assert wrong.returncode == 1
