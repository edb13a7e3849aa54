from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delen.core.plan import ExitView
from delen.errors import InvalidInput
from policies.exit.conditions import COMPARISONS, METRICS, conditions_policy, parse_conditions

MakeView = Callable[..., ExitView]
NEVER = {"metric": "confidence", "op": "null", "threshold": 0}
SEEN = {
    "response_time": 0.010,
    "confidence": 0.5,
    "accuracy": 0.6,
    "energy": 100.0,
    "computation": 2.0,
    "exit": 1,
}
"""What the view of these tests shows, in the units of Dělen's files."""


def condition(metric: str, op: str, threshold: float) -> dict[str, Any]:
    return {"metric": metric, "op": op, "threshold": threshold}


def holds(view: ExitView, *conditions: Any) -> bool:
    (parsed,) = parse_conditions(list(conditions), exits=2)
    return parsed.holds(view)


def test_these_are_delens_metrics() -> None:
    assert set(METRICS) == set(SEEN)


@pytest.mark.parametrize("metric", SEEN)
@pytest.mark.parametrize("op", COMPARISONS)
def test_every_comparison_of_every_metric(make_view: MakeView, metric: str, op: str) -> None:
    value = SEEN[metric]
    expected = {
        "less": (False, False, True),
        "less_eq": (False, True, True),
        "equal": (False, True, False),
        "greater": (True, False, False),
        "greater_eq": (True, True, False),
        "null": (False, False, False),
    }[op]
    for threshold, true in zip((value - 1, value, value + 1), expected, strict=True):
        assert holds(make_view(), condition(metric, op, threshold)) is true


@pytest.mark.parametrize("op", COMPARISONS)
def test_unknown_energy_holds_for_nothing(make_view: MakeView, op: str) -> None:
    for threshold in (-1e9, 0, 1e9):
        assert not holds(make_view(energy=None), condition("energy", op, threshold))


YES, NO = condition("confidence", "greater", 0), condition("confidence", "greater", 1)


@pytest.mark.parametrize(
    ("op", "parts", "expected"),
    [
        ("and", [YES, YES], True),
        ("and", [YES, NO], False),
        ("or", [NO, YES], True),
        ("or", [NO, NO], False),
        ("and", [YES], True),
        ("or", [NO, {"op": "and", "conditions": [YES, YES]}], True),
        ("and", [YES, {"op": "or", "conditions": [NO, NO]}], False),
        ("and", [{"op": "or", "conditions": [NO, {"op": "and", "conditions": [YES]}]}, YES], True),
    ],
)
def test_compound_conditions(
    make_view: MakeView, op: str, parts: list[Any], expected: bool
) -> None:
    assert holds(make_view(), {"op": op, "conditions": parts}) is expected


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"metric": "exit"}, "must be a list"),
        (None, "must be a list"),
        ([], "0 conditions do not fit a network of 4 exits"),
        ([NEVER] * 5, "5 conditions do not fit"),
        ([NEVER, NEVER, 7], "condition 2 must be an object"),
        ([NEVER, {}, NEVER], r"condition 1 lacks 'op'"),
        ([{"op": "greater", "threshold": 1}, NEVER, NEVER], "condition 0 lacks 'metric'"),
        ([{"op": "greater", "metric": "exit"}, NEVER, NEVER], "condition 0 lacks 'threshold'"),
        ([condition("exit", "above", 1), NEVER, NEVER], "op 'above' must be one of less, "),
        (
            [condition("speed", "less", 1), NEVER, NEVER],
            "metric 'speed' must be one of response_time",
        ),
        ([{**NEVER, "threshold": "1"}, NEVER, NEVER], "'threshold' must be a number"),
        ([{**NEVER, "threshold": True}, NEVER, NEVER], "'threshold' must be a number"),
        ([{**NEVER, "threshold": float("nan")}, NEVER, NEVER], "finite"),
        ([{**NEVER, "note": "x"}, NEVER, NEVER], "condition 0 has the unknown key 'note'"),
        ([{"op": "and", "conditions": []}, NEVER, NEVER], "'and' needs at least one condition"),
        ([{"op": "or"}, NEVER, NEVER], "condition 0 lacks 'conditions'"),
        ([{"op": "or", "conditions": [3]}, NEVER, NEVER], r"condition 0\.conditions\[0\]"),
        ([{"op": "or", "conditions": [NEVER], "metric": "exit"}, NEVER, NEVER], "unknown key"),
    ],
)
def test_a_wrong_file_is_refused_with_the_condition_and_the_reason(
    document: object, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        conditions_policy(4, document)


@pytest.mark.parametrize(("name", "bound"), [("20ms", 0.02), ("40ms", 0.04)])
@pytest.mark.parametrize("exits", [4, 5])
def test_delens_own_files_run_unchanged(
    make_view: MakeView, data_folder: Path, name: str, bound: float, exits: int
) -> None:
    file = data_folder / "profiles" / f"delen_conditions_{name}.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    policy = conditions_policy(exits, json.loads(file.read_text()))
    for exit in range(exits - 1):
        early = make_view(exit=exit, exits=exits, elapsed=bound - 0.001, next_exit=exit + 1)
        late = make_view(exit=exit, exits=exits, elapsed=bound + 0.001, next_exit=exit + 1)
        assert policy.decide(early).reason is None
        assert policy.decide(late).reason == "policy"


def test_where_no_condition_holds_the_last_exit_answers(make_view: MakeView) -> None:
    for conditions in ([NEVER] * 3, [NEVER] * 4):
        policy = conditions_policy(4, conditions)
        assert policy.decide(make_view(exit=2, next_exit=3)).reason is None
        assert policy.decide(make_view(exit=3, next_exit=None)).reason == "final"


def test_each_exit_has_its_own_condition(make_view: MakeView) -> None:
    policy = conditions_policy(4, [NO, YES, NO])
    reasons = [policy.decide(make_view(exit=e, next_exit=e + 1)).reason for e in range(3)]
    assert reasons == [None, "policy", None]


def test_the_plan_and_the_caps_still_end_a_job(make_view: MakeView) -> None:
    policy = conditions_policy(4, [NEVER] * 3)
    assert policy.decide(make_view(next_exit=None, last=1)).reason == "planned_exit"
    assert policy.decide(make_view(max_latency=0.015)).reason == "latency"
    assert policy.decide(make_view(max_energy=0.12)).reason == "energy"


def test_one_job_leaves_nothing_behind_for_the_next(make_view: MakeView) -> None:
    policy = conditions_policy(4, [condition("response_time", "greater", 0.02)] * 3)
    slow, fast = make_view(elapsed=0.03), make_view(elapsed=0.01)
    assert [policy.decide(view).reason for view in (fast, slow, fast)] == [None, "policy", None]
