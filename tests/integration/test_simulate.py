"""``delen simulate`` on a tiny bundle, and on a profile alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from delen.bundle.manifest import load_bundle
from delen.commands.main import main
from delen.profile.profile import Profile

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
    assert 0 < fifo["label_blind_bound"] <= fifo["upper_bound"]
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
    head, columns, row, bound, label_blind = capsys.readouterr().out.splitlines()
    assert head.startswith("200 requests, 2 tenants")
    assert columns.split()[:2] == ["policy", "effective"]
    assert row.split()[0] == "value"
    assert bound.startswith("upper bound")
    assert label_blind.split()[0] == "label-blind"
    assert "estimate" in label_blind


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


def test_the_front_end_and_drift_have_their_effect(
    simulate: Simulate, profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(*arguments: str | Path) -> dict[str, Any]:
        assert simulate("--policy", "value", "--json", "--no-upper-bound", *arguments) == 0
        return objects(capsys)[0]

    usual = figures()
    assert figures("--front", "2ms,0ms")["latency_ms"]["p50"] > usual["latency_ms"]["p50"]
    document = json.loads(profile.read_text())
    for segment in document["segments"]:
        for batch in segment["batches"].values():
            batch["latency_ms"] = {name: 1.5 * ms for name, ms in batch["latency_ms"].items()}
    become = tmp_path / "become.json"
    become.write_text(json.dumps(document))
    drifted = figures("--actual", become)
    assert drifted["slowdown"] > usual["slowdown"] + 0.3
    assert drifted["latency_ms"]["p50"] > usual["latency_ms"]["p50"]


def test_plots_are_written(simulate: Simulate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots take delen[plot]")
    image = pytest.importorskip("PIL.Image", reason="Pillow opens what is plotted: delen[plot]")
    drawn = []
    for number, policies in enumerate((["fifo"], ["fifo", "value"])):
        folder = tmp_path / "new" / f"plots{number}"
        assert simulate("--policy", *policies, "--plots", folder) == 0
        drawn.append({file.name: image.open(file).convert("RGB") for file in folder.iterdir()})
    one, both = drawn
    assert set(one) == {"front.png", "latency.png", "tenants-fifo.png"}
    assert set(both) == {*one, "tenants-value.png"}
    for plot in both.values():
        assert min(plot.size) > 200
        assert len(plot.getcolors(1 << 24)) > 20
    for name in ("front.png", "latency.png"):
        assert one[name].tobytes() != both[name].tobytes(), "the second policy is drawn"
    assert one["tenants-fifo.png"].tobytes() == both["tenants-fifo.png"].tobytes()


def test_plots_show_what_the_runs_came_to(
    simulate: Simulate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="plots take delen[plot]")
    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    assert simulate("--policy", "fifo", "value", "--json", "--plots", tmp_path) == 0
    monkeypatch.undo()
    summaries = [
        json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] == "{"
    ]
    front, latency, *timelines = [figure.axes for figure in drawn]
    pyplot.close("all")
    points = [tuple(line.get_xydata()[0]) for line in front[0].lines[:2]]
    assert points == [
        pytest.approx((100 * summary["violations"], 100 * summary["effective_accuracy"]))
        for summary in summaries
    ]
    reached = {line.get_label(): max(line.get_ydata()) for line in latency[0].lines}
    assert reached == {each["policy"]: each["answered"] / each["requests"] for each in summaries}
    for above, below in timelines:
        requests = {}
        for line in above.lines:
            middles, rates = line.get_xdata(), line.get_ydata()
            requests[line.get_label()] = rates.sum() * (middles[1] - middles[0])
        assert requests == pytest.approx({"camera": 100, "phone": 100})
        assert len(below.lines) == 2


def test_plots_of_many_tenants_are_a_map_that_names_each(
    simulate: Simulate, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="plots take delen[plot]")
    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    rows = [f"{0.01 * n:.2f},tenant-{n % 60:02},100" for n in range(180)]
    trace.write_text("\n".join(["time_s,tenant,max_latency_ms", *rows]) + "\n")
    assert simulate("--policy", "fifo", "--no-upper-bound", "--plots", tmp_path) == 0
    monkeypatch.undo()
    front, latency, timelines = drawn
    for figure in (front, latency):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fifo"]
        assert not figure.axes[0].texts, "no label lies among the points"
    above, below, _ = timelines.axes
    assert len(above.lines) == 1
    labels = below.get_yticklabels()
    assert {label.get_text() for label in labels} == {f"tenant-{n:02}" for n in range(60)}
    for label in labels:
        box, frame = label.get_window_extent(), timelines.bbox
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
    pyplot.close("all")


def test_a_sweep_has_a_mean_and_an_interval_for_each_speed_and_policy(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["--policy", "fifo", "edf", "--no-upper-bound", "--speed", "1,4", "--seeds", "3"]
    assert simulate(*sweep) == 0
    title, columns, *rows = capsys.readouterr().out.splitlines()
    assert "3 seeds" in title
    assert columns.split()[:2] == ["speed", "policy"]
    named = [tuple(row.split()[:2]) for row in rows]
    assert named == [("1", "fifo"), ("1", "edf"), ("4", "fifo"), ("4", "edf")]
    assert all(row.count("±") == 6 for row in rows), "all but the bound"
    assert simulate(*sweep, "--json") == 0
    runs = objects(capsys)
    assert [(run["seed"], run["speed"], run["policy"]) for run in runs] == [
        (seed, speed, policy)
        for seed in (0, 1, 2)
        for speed in (1.0, 4.0)
        for policy in ("fifo", "edf")
    ]
    fifo = [run["effective_accuracy"] for run in runs if run["policy"] == "fifo"][::2]
    mean, reach = rows[0].split()[2], rows[0].split()[4]
    assert float(mean) == pytest.approx(sum(fifo) / 3, abs=1e-4)
    assert float(reach) > 0
    assert simulate("--policy", "fifo", "--no-upper-bound", "--seed", "2", "--json") == 0
    (alone,) = objects(capsys)
    assert alone["effective_accuracy"] == fifo[2]


def test_a_faster_trace_has_the_same_requests_in_less_time(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--policy", "fifo", "--no-upper-bound", "--speed", "20", "--json") == 0
    (fast,) = objects(capsys)
    assert (fast["speed"], fast["requests"]) == (20.0, 200)
    assert fast["latency_ms"]["p50"] > 100, "it asks for more than the device can do"


def test_profiles_are_compared_by_the_same_requests(
    simulate: Simulate,
    tiny_bundle: Path,
    profile: Path,
    trace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(profile.read_text())
    for segment in document["segments"]:
        for batch in segment["batches"].values():
            batch["latency_ms"] = {name: 3 * ms for name, ms in batch["latency_ms"].items()}
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(document))
    given = ["simulate", "--bundle", tiny_bundle, "--trace", trace, "--policy", "fifo"]
    given += ["--compare", profile, slow, "--no-upper-bound"]
    command = list(map(str, given))
    assert main([*command, "--seeds", "2"]) == 0
    _, columns, first, second = capsys.readouterr().out.splitlines()
    assert columns.split()[0] == "file"
    assert columns.endswith("than the first")
    assert (first.split()[0], second.split()[0]) == ("profile.json", "slow.json")
    assert "±" in second.split("%")[-1] and second.split()[-3].startswith("-")
    assert main([*command, "--json"]) == 0
    fast_run, slow_run = objects(capsys)
    assert (fast_run["compared"], slow_run["compared"]) == (str(profile), str(slow))
    assert slow_run["latency_ms"]["p50"] > 2 * fast_run["latency_ms"]["p50"]


@pytest.mark.parametrize("kind", ["profile", "config"])
def test_what_is_compared_stands_for_the_option(
    kind: str,
    profile: Path,
    simulate: Simulate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    suffix = {"profile": ".json", "config": ".toml"}[kind]
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "other")]
    for file in files:
        file.write_text("")
    assert simulate("--config", profile, "--compare", *files) == 2
    assert f"in place of --{kind}" in capsys.readouterr().err


def test_configurations_are_compared(
    simulate: Simulate, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice as much as the device can do, with room for all that waits, and with little."""
    rows = [f"{0.002 * row}" for row in range(1000)]
    trace.write_text("time_s\n" + "\n".join(rows) + "\n")
    for name, seconds in (("long", 60), ("short", 0.1)):
        (tmp_path / f"{name}.toml").write_text(f"[server]\nmax_backlog_seconds = {seconds}\n")
    files = [tmp_path / "long.toml", tmp_path / "short.toml"]
    assert simulate("--policy", "fifo", "--no-upper-bound", "--json", "--compare", *files) == 0
    long, short = objects(capsys)
    assert long["refused"] == 0 < short["refused"]


def test_a_sweep_is_one_plot(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="plots take delen[plot]")
    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    sweep = ["--policy", "fifo", "edf", "--no-upper-bound", "--speed", "1,2", "--seeds", "2"]
    assert simulate(*sweep, "--plots", tmp_path / "plots") == 0
    monkeypatch.undo()
    assert [file.name for file in (tmp_path / "plots").iterdir()] == ["sweep.png"]
    ((above, below),) = [figure.axes for figure in drawn]
    assert above.get_legend_handles_labels()[1] == ["fifo", "edf"]
    assert {*above.containers[0][0].get_xdata()} == {*below.containers[1][0].get_xdata()} == {1, 2}
    pyplot.close("all")


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
        ("time_s\n1\nnan\n", "line 3: column time_s: time_s is nan"),
        ("time_s,max_latency_ms\n1,nan\n", "line 2: column max_latency_ms"),
        ("time_s,colour\n1,red\n", "unknown column 'colour'"),
        ("time_s,tenant\n1,two words\n", "line 2: column tenant"),
        ("", "no header"),
        ("time_s\n", "it has a header and no requests"),
    ],
)
def test_bad_traces_are_named(
    rows: str, named: str, simulate: Simulate, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_text(rows)
    assert simulate("--policy", "fifo") == 1
    assert named in capsys.readouterr().err


def test_lanes_need_factors_that_somebody_has_measured(
    simulate: Simulate, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_lanes = ["--policy", "fifo", "--lanes", "2", "--json"]
    assert simulate(*two_lanes) == 2
    assert "the profile of tiny does not say" in capsys.readouterr().err
    known = json.loads(profile.read_text())

    def p95(*more: str) -> float:
        assert simulate(*two_lanes, *more) == 0
        (figures,) = objects(capsys)
        return float(figures["latency_ms"]["p95"])

    given = p95("--corun", "1.0,1.5")
    profile.write_text(json.dumps({**known, "corun": [1.0, 1.5, 1.7]}))
    assert p95() == pytest.approx(given, rel=0.05)
    assert p95("--corun", "1.0,1.0") < given


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--policy", "none"], "no 'none'; installed:"),
        (["--corun", "1.0,1.5"], "give --lanes 2 or more"),
        (["--weight", "stranger=2"], "--weight names stranger"),
        (["--priority", "stranger=2"], "--priority names stranger"),
        (["--slowdown", "0:10:2", "--slowdown", "5:20:2"], "overlap"),
        (["--policy", "fifo", "edf", "fifo"], "fifo is given twice"),
        (["--compare", "a.json"], "at least two"),
        (["--compare", "a.toml", "a.toml"], "a.toml is given twice"),
        (["--compare", "b.csv", "a.toml"], "b.csv: it must be a profile (.json)"),
        (["--compare", "a.json", "b.json"], "a.json: there is no such file"),
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
        ["--priority", "camera"],
        ["--priority", "camera=0"],
        ["--priority", "camera=first"],
        ["--network", "5"],
        ["--corun", "fast"],
        ["--front", "1ms"],
        ["--seed", "-1"],
        ["--seed", "1.5"],
        ["--seeds", "0"],
        ["--seeds", "99999999999"],
        ["--seed", "1_0"],
        ["--speed", "1_0"],
        ["--speed", "\u0663"],
        ["--weight", "camera=1_0"],
        ["--corun", "1_0"],
        ["--speed", "fast"],
        ["--speed", "0.3,0"],
        ["--speed", "0.3,,1"],
        ["--speed", "1,1.0"],
        ["--front", "1,2"],
        ["--front", "1ms,2ms,3ms"],
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


def test_drift_to_another_network_is_refused(
    simulate: Simulate,
    tmp_path: Path,
    make_profile: Callable[..., Profile],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.json"
    other.write_text(make_profile(0.1, 0.1, 0.1, model="other").to_json())
    assert simulate("--actual", other) == 2
    assert "a profile of other, not of tiny" in capsys.readouterr().err


def test_a_profile_of_another_bundle_is_refused(
    simulate: Simulate,
    profile: Path,
    make_profile: Callable[..., Profile],
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile.write_text(make_profile(0.1, 0.1, 0.1).to_json())
    assert simulate("--policy", "fifo") == 1
    assert "another bundle" in capsys.readouterr().err


def test_weights_and_priorities_have_their_effect(
    simulate: Simulate, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tenants alike send far more than the device can do, and both as the most urgent."""
    rows = [f"{0.0004 * row},{('camera', 'phone')[row % 2]},1" for row in range(2000)]
    trace.write_text("time_s,tenant,priority\n" + "\n".join(rows) + "\n")

    def camera_and_phone(*arguments: str) -> list[dict[str, Any]]:
        assert simulate("--policy", "edf", "--json", "--no-upper-bound", *arguments) == 0
        tenants = objects(capsys)[0]["tenants"]
        return [tenants["camera"], tenants["phone"]]

    camera, phone = camera_and_phone()
    assert camera["latency_ms"]["p50"] == pytest.approx(phone["latency_ms"]["p50"], rel=0.1)
    assert camera["answered"] == pytest.approx(phone["answered"], rel=0.1)
    camera, phone = camera_and_phone("--priority", "camera=1")
    assert camera["latency_ms"]["p50"] < 0.5 * phone["latency_ms"]["p50"]
    camera, phone = camera_and_phone("--weight", "camera=20")
    assert camera["answered"] > 2 * phone["answered"]


@pytest.mark.parametrize("option", ["--profile", "--actual", "--config"])
def test_a_file_may_be_a_pipe_that_can_be_read_once(
    simulate: Simulate, profile: Path, trace: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(file: Path | str) -> list[dict[str, Any]]:
        given = ["--policy", "fifo", "--seeds", "2", "--no-upper-bound", "--json", option, file]
        assert simulate(*given) == 0
        return [{**each, "decision_us": None} for each in objects(capsys)]

    file = profile
    if option == "--config":
        file = profile.with_suffix(".toml")
        file.write_text("[server]\nmax_backlog_seconds = 0.1\n")
        trace.write_text("time_s\n" + "\n".join(f"{0.002 * row}" for row in range(1000)))
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(reader), os.fdopen(writer, "wb") as pipe:
        pool.submit(lambda: (pipe.write(file.read_bytes()), pipe.close()))
        assert play(f"/dev/fd/{reader}") == play(file)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--seed", "-1"), "a whole number of at least 0"),
        (("--seed", "1.5"), "a whole number of at least 0"),
        (("--slowdown", "1:2"), "'1:2' must be START:END:FACTOR in seconds, such as 60:120:2.0\n"),
        (("--slowdown", "0:10:inf"), "finite"),
        (("--slowdown", "0:inf:2"), "finite"),
        (("--slowdown", "0:10:nan"), "finite"),
        (("--lanes", "0"), "a whole number of at least 1"),
        (("--corun", "0.5"), "factors of at least 1"),
        (("--corun", "1,nan"), "factors of at least 1"),
        (("--front=-1ms,0ms",), "at least 0"),
        (("--network", "1e999s"), "finite"),
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
