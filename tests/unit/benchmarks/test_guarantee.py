"""A small version of the resampling study, on populations that are made up."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.bundle.manifest import load_bundle
from multiexit_models.data.dataset import Labelled
from policies.plan.thresholds import agreement_threshold, certified_threshold

MACS = (1, 3, 6)


@pytest.fixture(scope="module")
def guarantee() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[3])
        return importlib.import_module("benchmarks.guarantee")


@pytest.fixture(scope="module")
def table(make_calibration: Callable[..., Calibration]) -> Calibration:
    return make_calibration(0.7, 0.85, 0.9, samples=2000)


@pytest.fixture(scope="module")
def made(guarantee: Any, table: Calibration) -> list[Any]:
    outcomes: list[Any] = guarantee.run(
        table, MACS, draws=100, sizes=(300, 3000), deltas=(0.05, 0.2)
    )
    return outcomes


def test_the_procedures_hold_and_the_naive_rule_does_not(guarantee: Any, made: list[Any]) -> None:
    assert len(made) == 2 * 2 * 2 * 3 * 3
    certified = [outcome for outcome in made if outcome.rule in ("ltt", "ucb")]
    assert all(outcome.violated <= outcome.limit for outcome in certified)
    assert sum(outcome.issued for outcome in certified) > len(certified) / 4
    naive = [outcome for outcome in made if outcome.rule == "naive"]
    assert max(outcome.violated for outcome in naive) > 0.4
    figures = guarantee.figures(made)
    assert all(figure.holds is not False for figure in figures)
    assert sum(figure.limit is not None for figure in figures) == len(certified)


def test_certificates_cost_more_where_they_are_harder(made: list[Any]) -> None:
    by_key = {(o.study, o.samples, o.delta, o.allowed, o.rule): o for o in made}
    for outcome in made:
        if outcome.rule == "ltt":
            key = (outcome.study, outcome.samples, outcome.delta, outcome.allowed)
            assert by_key[(*key, "ucb")].issued <= outcome.issued
            assert outcome.cost is None or 0 < outcome.cost <= 1


def test_a_draw_is_judged_as_the_planner_would(guarantee: Any, table: Calibration) -> None:
    """The vectorised study and policies.plan.thresholds choose the same, draw by draw."""
    samples = 800
    accuracy, agreement = guarantee.studies(table, MACS)
    drawn = np.random.default_rng(0).integers(0, table.samples, samples)
    one = Calibration(table.confidence[drawn], table.correct[drawn], table.predictions[drawn])
    errors = guarantee.draw_errors(
        [accuracy.losses, agreement.losses], samples, 1, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(errors[0][0], samples - one.curve(2).correct)
    np.testing.assert_array_equal(errors[1][0], samples - one.agreement(2).correct)
    for rule, most_errors in guarantee.PROCEDURES.items():
        for study, counted, choose in (
            (accuracy, errors[0], lambda a, r: certified_threshold(one, 2, 1 - a, 0.9, r)),
            (agreement, errors[1], lambda a, r: agreement_threshold(one, 2, a, 0.9, r)),
        ):
            for allowed in study.allowed:
                passed = counted <= most_errors(samples, allowed, 0.1)
                index = int(guarantee.last_before_failure(passed)[0])
                chosen = choose(allowed, rule)
                assert (chosen is None) == (index < 0)
                assert chosen is None or chosen.value == THRESHOLDS[index]


def test_the_table_has_a_line_a_setting(guarantee: Any, made: list[Any]) -> None:
    lines: list[str] = []
    guarantee.print_table(made, lines.append)
    assert len(lines) == 1 + len(made) // 3
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_population_is_the_bundles_table_and_what_it_answers_now(
    guarantee: Any, tiny_bundle: Path
) -> None:
    bundle = load_bundle(tiny_bundle)
    images = np.random.default_rng(2).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    whole = guarantee.population(bundle, Labelled(images, np.zeros(50, np.int64)))
    table = bundle.calibration
    assert whole.samples == table.samples + 50
    np.testing.assert_array_equal(whole.confidence[: table.samples], table.confidence)
    np.testing.assert_array_equal(whole.correct[-50:], whole.predictions[-50:] == 0)
    last = whole.predictions[-50:, -1]
    assert len(np.unique(last)) > 1
