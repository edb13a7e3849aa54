"""A wrong value of an option is wrong usage, whatever the command: status 2, the option named."""

from __future__ import annotations

import pytest

from delen.commands.main import main

SIMULATE = ["simulate", "--trace", "x.csv"]
BENCH = ["bench", "--trace", "x.csv"]
BUILD = ["build", "--data", "x", "--output", "y"]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        *(
            (command, wrong)
            for command in (["infer", "x.png"], ["plan"])
            for wrong in (
                "--max-latency=-5ms",
                "--max-latency=0ms",
                "--max-latency=5",
                "--max-latency=nan",
                "--max-latency=1e999s",
                "--max-energy=-1J",
                "--max-energy=infJ",
                "--min-accuracy=2",
                "--min-accuracy=90",
                "--min-accuracy=-0.1",
                "--min-accuracy=nan",
                "--min-accuracy=inf",
                "--url=localhost:8000",
                "--url=http://",
                "--url=http://localhost:99999",
                "--url=unix://",
            )
        ),
        *(
            (["infer", "x.png"], wrong)
            for wrong in (
                "--top-k=0",
                "--top-k=1.5",
                "--priority=10",
                "--priority=0",
                "--priority=nan",
                "--tenant=a b",
                "--tenant=",
            )
        ),
        *(
            (["power"], wrong)
            for wrong in (
                "--watt-cap=0W",
                "--watt-cap=-3W",
                "--watt-cap=1e999W",
                "--battery=0Wh",
                "--reserve=-1Wh",
                "--last=0s",
                "--history=0s",
                "--history=25h",
                "--since=25h",
                "--since=2",
                "--history=1e999s",
            )
        ),
        *(
            (SIMULATE, wrong)
            for wrong in (
                "--seed=-1",
                "--lanes=0",
                "--lanes=inf",
                "--corun=nan",
                "--corun=0.5",
                "--network=-1ms",
                "--front=1ms",
                "--front=-1ms,1ms",
                "--weight=a=nan",
                "--weight=a=-1",
                "--priority=a=10",
                "--slowdown=0:nan:2",
            )
        ),
        *(
            (BENCH, wrong)
            for wrong in (
                "--speed=0",
                "--speed=nan",
                "--speed=inf",
                "--in-flight=0",
                "--timeout=0s",
                "--timeout=-1s",
                "--timeout=1e999s",
                "--url=x",
                "--seed=1.5",
            )
        ),
        *((["trace", "--output", "x"], wrong) for wrong in ("--duration=0s", "--seed=-1")),
        (["doctor"], "--url=x"),
        (["capacity", "--app", "10 fps, 100 ms"], "--violations=100%"),
        (["profile"], "--batches=0"),
        *(
            (["profile", "--energy"], f"{option}={number}")
            for option in ("--blocks", "--block-seconds", "--spread", "--batches")
            for number in ("1_0", "\u0663")
        ),
        *(
            (BUILD, wrong)
            for wrong in (
                "--epochs=0",
                "--floor=nan",
                "--floor=2",
                "--seed=-1",
                "--max-unreadable=inf",
                "--mean=nan,1,1",
                "--std=inf,1,1",
                "--std=1_0,1,1",
                "--epochs=1_0",
                "--floor=\u0660",
                "--seed=\u0663",
                "--sizes=1_0",
            )
        ),
    ],
)
def test_a_wrong_value_names_its_option(
    command: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, wrong])
    assert ended.value.code == 2
    assert f"argument {wrong.partition('=')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["profile", "--energy", "--blocks", "1"], "--blocks"),
        (["profile", "--energy", "--block-seconds", "inf"], "--block-seconds"),
        (["profile", "--energy", "--spread", "nan"], "--spread"),
        (["profile", "--spread", "0.05"], "--energy"),
        (["power", "--history", "--watt-cap", "12W"], "--history"),
        (["power", "--history", "60s", "--mode", "15W"], "--history"),
        (["power", "--history", "--battery", "none"], "--history"),
        (["power", "--csv", "--watt-cap", "12W"], "--csv"),
        (["power", "--csv", "--apps"], "--apps"),
        (["power", "--csv", "--json"], "--json"),
        (["power", "--since", "2h"], "--csv"),
        (["power", "--battery", "1Wh", "--reserve", "2Wh", "--last", "1h"], "--reserve"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert named in capsys.readouterr().err


def test_no_reserve_and_no_delay_may_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "--battery", "1Wh", "--reserve", "0Wh"]) == 2
    assert "--last" in capsys.readouterr().err
