from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("tqdm", reason="progress needs tqdm: delen[train]")

from multiexit_models import progress
from multiexit_models.progress import Bar


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0)


def test_other_units_and_other_totals_get_a_bar_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = Bar()
    bar.stage("exporting")
    for done in (1, 2):
        bar.segment(done, 2)
    for done, total in ((4, 8), (8, 8), (3, 6), (2, 6)):
        bar.sample(done, total)
    bar.close()
    said = capsys.readouterr().err
    for shown in ("2/2", "8/8", "3/6", "2/6"):
        assert shown in said


def test_the_time_of_a_stage_includes_its_first_item(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Bar()
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: time.time() - 60))
    bar.stage("checking")
    bar.sample(1, 2)
    bar.close()
    assert "01:0" in capsys.readouterr().err
