"""The table of backbones: a refusal in a sentence is a row, and anything else a missed claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import backbones
from benchmarks.backbones import BACKBONES, Backbone, Outcome

REFUSED = Outcome(Backbone("timm", "net", 64), 1, ("cutting ...", "delen: cut it so"), 3.0, None)
CRASHED = replace(REFUSED, status=-11)
UNEXPECTED = replace(REFUSED, said=("delen: unexpected KeyError: 'x' (--debug shows where)",))
LATE = replace(REFUSED, said=("training ...", "delen: it differs"))
ENDLESS = replace(REFUSED, status=None)


def test_every_backbone_is_a_file_of_its_own() -> None:
    sources = {backbone.source for backbone in BACKBONES}
    assert len(sources) == len(BACKBONES) >= 24
    for source in sources:
        compile(source, "net.py", "exec")


@pytest.mark.parametrize(
    ("outcome", "plain", "shown"),
    [
        (REFUSED, True, "cut it so"),
        (CRASHED, False, "-11"),
        (UNEXPECTED, False, "KeyError"),
        (LATE, True, "after the training began"),
        (ENDLESS, False, "no end"),
    ],
)
def test_a_backbone_that_was_not_built_says_why(outcome: Outcome, plain: bool, shown: str) -> None:
    assert outcome.in_a_sentence == plain
    assert shown in outcome.text()


def test_what_is_not_refused_as_it_should_is_a_missed_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = [REFUSED, CRASHED, LATE]
    rest = iter(outcomes)

    def attempt(backbone: Backbone, photos: Path) -> Outcome:
        assert len(list(photos.glob("*/*.png"))) > 3
        return next(rest)

    monkeypatch.setattr(backbones, "attempt", attempt)
    monkeypatch.setattr(backbones, "AT_ONCE", 1)
    figures = {figure.name: figure for figure in backbones.main(BACKBONES[:3])}
    assert figures["built, and equal to torch"].median == 0
    assert figures["refused in a sentence"].median == 2
    assert figures["refused otherwise"].holds is False
    assert figures["refused after the training began"].holds is False
