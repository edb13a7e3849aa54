"""``delen bench --bundle``: a trace against an engine in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.commands.main import main

pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

Bench = Callable[..., int]
IMAGES = np.random.default_rng(5).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    rows = [f"{0.005 * n:.3f},{'camera' if n % 2 else 'phone'},5000" for n in range(40)]
    file.write_text("\n".join(["time_s,tenant,max_latency_ms", *rows]) + "\n")
    return file


@pytest.fixture
def bench(
    tiny_bundle: Path,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    brief_profile: None,
) -> Bench:
    monkeypatch.setenv("DELEN_STATE__PATH", str(tmp_path / "state"))
    monkeypatch.setenv("DELEN_DEVICE__BACKEND", "cpu")
    monkeypatch.setenv("DELEN_DEVICE__THREADS", "1")

    def run(*arguments: str | Path, trace: Path = trace) -> int:
        return main(
            ["bench", "--bundle", str(tiny_bundle), "--trace", str(trace), *map(str, arguments)]
        )

    return run


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_has_the_figures_of_the_contract(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--json") == 0
    (summary,) = objects(capsys)
    assert {
        "requests", "answered", "refused", "missed", "effective_accuracy", "upper_bound",
        "latency_ms", "energy_j", "exits", "tenants", "decision_us",
    } <= set(summary)  # fmt: skip
    assert summary["policy"] == "value"
    assert (summary["requests"], summary["answered"], summary["complete"]) == (40, 40, True)
    assert {name: row["requests"] for name, row in summary["tenants"].items()} == {
        "camera": 20,
        "phone": 20,
    }
    assert summary["accuracy_kind"] == "expected"
    assert summary["inputs"]["tiny"]["kind"] == "random"
    assert len(summary["exits"]) == 3
    assert summary["client"]["ended"] == {"answered": 40}


def test_labels_make_accuracy_measured(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []
    for label in range(4):
        file = tmp_path / f"{label}.npz"
        np.savez(file, inputs=IMAGES, labels=np.full(len(IMAGES), label))
        assert bench("--inputs", file, "--json", "--speed", "4") == 0
        (summary,) = objects(capsys)
        assert summary["accuracy_kind"] == "measured"
        assert summary["speed"] == 4.0
        assert summary["inputs"]["tiny"] == {"kind": "files", "count": 8, "labelled": 8}
        measured.append(summary["accuracy"])
    assert sum(measured) == pytest.approx(1.0), "every answer is one of the four classes"


def test_policies_are_played_one_after_another(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--policy", "value", "fifo", "--inputs", f"tiny={_images(tmp_path)}") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("40 requests, 2 tenants")
    assert [line.split()[0] for line in lines[2:4]] == ["value", "fifo"]
    assert "value: accuracy expected" in out and "40 answered" in out
    assert not err


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (["--url", "http://127.0.0.1:1"], 2, "not both"),
        (["--policy", "nobody"], 2, "nobody"),
        (["--policy", "fifo", "--policy", "edf", "fifo"], 2, "fifo is given twice"),
        (["--inputs", "nowhere.npy"], 1, "nowhere.npy"),
    ],
)
def test_wrong_usage_is_told(
    bench: Bench, capsys: pytest.CaptureFixture[str], given: list[str], status: int, said: str
) -> None:
    assert bench(*given) == status
    assert said in capsys.readouterr().err


def test_a_trace_that_asks_another_model_is_refused(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.csv"
    file.write_text("time_s,model\n0,large\n")
    assert bench(trace=file) == 1
    assert "'large'; served: tiny" in capsys.readouterr().err


def _images(folder: Path) -> Path:
    np.save(folder / "images.npy", IMAGES)
    return folder / "images.npy"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "example: delen bench --url" in capsys.readouterr().out


def test_receipts_that_hide_what_the_client_saw_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from delen.commands.bench import _warn

    client = {"missed_latency": 40, "sent_late_ms": {"p99": 0.5}}
    summary = {"clock": "daemon", "answered": 100, "missed": {"latency": 2}, "client": client}
    _warn(summary)
    assert (
        "2 answers missed their latency by the receipts, 40 by the client's"
        in capsys.readouterr().err
    )
    _warn({**summary, "clock": "client"})
    _warn({**summary, "missed": {"latency": 38}})
    assert not capsys.readouterr().err
