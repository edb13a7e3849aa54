"""The page of results shows every figure, every missed claim and every benchmark that failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import benchmarks.__main__ as command
from benchmarks.common import Figure, report
from benchmarks.page import Section, page

KEPT = Figure("kept", (1.0, 2.0, 3.0), "ms", 5.0)
MISSED = Figure("accuracy of early answers", (0.7,), "", 0.8, at_most=False)


def section(name: str = "energy_control", *figures: Figure, failure: str | None = None) -> Section:
    output = "\n".join(figure.line() for figure in figures)
    return Section(
        name, "``python -m benchmarks.x``: what ``x`` does.", output, figures, 3.0, failure
    )


NAMES = ["chain", "http", "energy_control"]


def test_missed_claims_come_first_and_stay_in_their_section() -> None:
    text = page([section("energy_control", KEPT, MISSED)], NAMES)
    _, missed, body = text.split("\n## ")
    assert "1 of 2 claims are missed." in missed
    said = "accuracy of early answers: 0.7, claimed >= 0.8"
    assert f"- [energy_control](#energy-control): {said}" in missed
    assert body.startswith("energy control\n\nWhat `x` does.")
    assert MISSED.line() in body
    assert KEPT.line() in body


def test_a_section_says_when_and_on_what_it_ran() -> None:
    last = page([section("chain", KEPT)], NAMES).strip().splitlines()[-1]
    assert "UTC" in last and "commit " in last and "numpy " in last and "cores" in last


def test_a_section_takes_the_place_of_its_own_and_the_others_stay() -> None:
    before = page([section("energy_control", MISSED), section("chain", MISSED)], NAMES)
    text = page([section("chain", KEPT), section("http", KEPT)], NAMES, before)
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Missed claims", "## chain", "## http", "## energy control"]
    assert "1 of 3 claims are missed." in text
    assert "- [energy_control](#energy-control)" in text
    assert "Not run yet" not in text


def test_a_benchmark_that_is_gone_leaves_the_page() -> None:
    before = page([section("chain", KEPT), section("http", MISSED)], NAMES)
    text = page([section("chain", KEPT)], ["chain", "energy_control"], before)
    assert "## http" not in text
    assert "0 of 1 claims are missed." in text
    assert "Not run yet: energy_control." in text


def test_a_benchmark_that_failed_is_named() -> None:
    failed = section("chain", failure="no CIFAR-10 under /data")
    text = page([failed, section("http", KEPT)], NAMES)
    assert "- [chain](#chain) did not end" in text
    assert "This benchmark did not end: no CIFAR-10 under /data" in text
    assert KEPT.line() in text


def test_the_command_writes_the_page_although_one_benchmark_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> list[Figure]:
        print("half of it")
        sys.exit("no data")

    made = {"good": lambda: report("Good", [MISSED]), "bad": fails}
    monkeypatch.setattr(command, "BENCHMARKS", made)
    file = tmp_path / "results.md"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--markdown", str(file)])
    assert command.main() == 1
    text = file.read_text()
    assert MISSED.line() in text
    assert "half of it" in text
    assert "no data" in text
    assert MISSED.line() in capsys.readouterr().out


def test_no_other_server_is_installed_unless_its_benchmark_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(command, "run", lambda name: ran.append(name) or section(name))
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert command.main() == 0
    assert ran == [*command.BENCHMARKS]
    assert "servers" not in ran
    monkeypatch.setattr(sys, "argv", ["benchmarks", "servers"])
    command.main()
    assert ran[-1] == "servers"
