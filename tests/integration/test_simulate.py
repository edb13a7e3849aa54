"""``delen simulate`` on a tiny bundle, and on a profile alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delen.bundle import load_bundle
from delen.cli import main
from delen.profile import Profile

Simulate = Callable[..., int]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    rows = [f"{0.01 * n:.2f},{'camera' if n % 2 else 'phone'},100" for n in range(200)]
    file.write_text("\n".join(["time_s,tenant,max_latency_ms", *rows]) + "\n")
    return file


@pytest.fixture
def profile(tiny_bundle: Path, tmp_path: Path, make_profile: Callable[..., Profile]) -> Path:
    made = make_profile(
        0.004, 0.004, 0.004, spread=0.1, bundle=load_bundle(tiny_bundle).digest, model="tiny"
    )
    file = tmp_path / "profile.json"
    file.write_text(made.to_json())
    return file


@pytest.fixture
def simulate(tiny_bundle: Path, profile: Path, trace: Path) -> Simulate:
    def run(*arguments: str | Path) -> int:
        given = ["--bundle", tiny_bundle, "--profile", profile, "--trace", trace, *arguments]
        return main(["simulate", *map(str, given)])

    return run


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_has_the_figures_of_the_contract(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--policy", "fifo", "edf", "--json") == 0
    fifo, edf = objects(capsys)
    assert (fifo["policy"], edf["policy"]) == ("fifo", "edf")
    assert {
        "requests", "answered", "refused", "missed", "effective_accuracy", "upper_bound",
        "latency_ms", "energy_j", "exits", "tenants", "decision_us",
    } <= set(fifo)  # fmt: skip
    assert fifo["requests"] == 200
    assert set(fifo["tenants"]) == {"camera", "phone"}
    assert fifo["tenants"]["phone"]["requests"] == 100
    assert 0 < fifo["effective_accuracy"] <= fifo["upper_bound"] <= 1
    assert fifo["latency_ms"]["p50"] >= 4


def test_all_policies_are_compared_ours_first(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--json", "--no-upper-bound") == 0
    names = [summary["policy"] for summary in objects(capsys)]
    assert names[0] == "value"
    assert {"fifo", "edf", "delen"} <= set(names)


def test_the_table_names_policies_and_the_bound(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--policy", "value") == 0
    head, columns, row, bound = capsys.readouterr().out.splitlines()
    assert head.startswith("200 requests, 2 tenants")
    assert columns.split()[:2] == ["policy", "effective"]
    assert row.split()[0] == "value"
    assert bound.startswith("upper bound")


def test_a_slowdown_network_and_seed_have_their_effect(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    def p50(*arguments: str) -> float:
        assert simulate("--policy", "fifo", "--json", "--no-upper-bound", *arguments) == 0
        return float(objects(capsys)[0]["latency_ms"]["p50"])

    usual = p50("--seed", "1")
    assert p50("--seed", "1") == usual != p50("--seed", "2")
    assert p50("--seed", "1", "--slowdown", "0:10:2.0") > 1.5 * usual
    assert p50("--seed", "1", "--network", "5ms") > usual + 9


def test_plots_are_written(simulate: Simulate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots take delen[plot]")
    folder = tmp_path / "new" / "plots"
    assert simulate("--policy", "fifo", "--plots", folder) == 0
    assert {file.name for file in folder.iterdir()} == {
        "front.png", "latency.png", "tenants-fifo.png"
    }  # fmt: skip


def test_a_profile_alone_is_a_device_that_is_not_here(
    trace: Path,
    tmp_path: Path,
    make_profile: Callable[..., Profile],
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(make_profile(0.01, 0.01, 0.02, model="nano").to_json())
    document["accuracies"] = [0.44, 0.68, 0.77]
    file = tmp_path / "nano.json"
    file.write_text(json.dumps(document))
    assert main(["simulate", "--profile", str(file), "--trace", str(trace), "--policy", "edf",
                 "--json"]) == 0  # fmt: skip
    (summary,) = objects(capsys)
    assert len(summary["exits"]) == 3
    assert 0.4 < summary["accuracy"] < 0.8


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("time_s\n1\n0.5\n", "line 3"),
        ("time_s\n-1\n", "time_s"),
        ("time_s,model\n1,other\n", "'other'"),
        ("tenant\na\n", "time_s is missing"),
    ],
)
def test_bad_traces_are_named(
    rows: str, named: str, simulate: Simulate, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_text(rows)
    assert simulate("--policy", "fifo") == 1
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--policy", "none"], "no 'none'; installed:"),
        (["--weight", "stranger=2"], "stranger"),
        (["--slowdown", "0:10:2", "--slowdown", "5:20:2"], "overlap"),
        (["--lanes", "0"], "lanes is 0"),
        (["--corun", "0.5"], "corun"),
    ],
)
def test_wrong_usage_ends_2(
    arguments: list[str], named: str, simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*arguments) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--slowdown", "1:2"],
        ["--slowdown", "2:1:2"],
        ["--slowdown", "a:b:c"],
        ["--weight", "camera"],
        ["--weight", "camera=0"],
        ["--network", "5"],
        ["--corun", "fast"],
    ],
)
def test_what_is_no_figure_is_refused_by_the_parser(
    arguments: list[str], simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        simulate(*arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_profile_without_accuracies_needs_its_bundle(
    profile: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--profile", str(profile), "--trace", str(trace)]) == 1
    assert "no accuracies" in capsys.readouterr().err


def test_a_profile_of_another_bundle_is_refused(
    simulate: Simulate,
    profile: Path,
    make_profile: Callable[..., Profile],
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile.write_text(make_profile(0.1, 0.1, 0.1).to_json())
    assert simulate("--policy", "fifo") == 1
    assert "another bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--seed", "-1"), "a whole number of at least 0"),
        (("--seed", "1.5"), "a whole number of at least 0"),
        (("--slowdown", "0:10:inf"), "finite"),
        (("--slowdown", "0:inf:2"), "finite"),
        (("--slowdown", "0:10:nan"), "finite"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    simulate: Simulate, wrong: tuple[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        simulate(*wrong)
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_bench_refuses_a_seed_below_0(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", "--trace", str(trace), "--seed", "-1"])
    assert left.value.code == 2
    assert "--seed" in capsys.readouterr().err
