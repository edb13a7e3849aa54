from __future__ import annotations

from copy import deepcopy
from typing import Any

from delen.commands.figures_text import figures_text

TIMES = {"p50": 1.5, "p95": 8.0, "p99": 12.25}
MODEL = {
    "name": "m", "default": True, "state": "ready", "problem": None, "jobs": 2, "slowdown": 1.02,
    "memory_mb": 37.7,
    "bounds": {"latency": {"kept": 9, "missed": 1}},
    "recent": {
        "seconds": 60.0, "answers": 4, "exits": [3, 0, 1], "latency_ms": TIMES, "queue_ms": TIMES,
        "of_bound": None, "missed": 0, "over_plan": None,
    },
}  # fmt: skip
FIGURES: dict[str, Any] = {
    "time": 1.8e9, "node": "nano", "version": "1", "status": "ok", "findings": [],
    "power": {
        "source": None, "kind": "unknown", "state": "none", "board": None, "watts": None,
        "static_w": None, "dynamic_w": None, "other_w": None, "price_per_j": None,
        "constraints": [],
    },
    "queue": {"jobs": 2, "backlog_ms": 3.0, "lanes": 1, "busy": 1},
    "memory": None,
    "models": [MODEL],
    "apps": {
        "cam": {
            "answers": 4, "refused": 1, "missed": {"latency": 1, "accuracy": 0, "energy": 0},
            "today_wh": None, "total_wh": None, "price_per_j": None, "balance_j": None,
        },
    },
}  # fmt: skip


def text(figures: dict[str, Any] = FIGURES, **more: Any) -> str:
    return "\n".join(figures_text(figures, more.pop("windows", []), **more))


def test_what_is_unknown_is_said_to_be_and_never_0() -> None:
    shown = text()
    assert "power   unknown (no power source)" in shown
    assert "hour    unknown" in shown
    assert "price   without limit" in shown
    row = next(line for line in shown.splitlines() if line.startswith("cam"))
    assert row.split(maxsplit=1)[1].split() == [
        *("4", "1", "1", "0", "0", "unknown", "unknown"),
        *("no", "limit", "no", "budget"),
    ]
    assert "accuracy over that of plans: unknown" in shown
    assert "of its bound" not in shown


def test_findings_come_first_with_what_helps() -> None:
    figures = deepcopy(FIGURES)
    figures["findings"] = [{"problem": "it is hot", "remedy": "cool it"}]
    assert text(figures).splitlines()[1:3] == ["!! it is hot", "   what helps: cool it"]
    assert text().splitlines()[1] == "nothing is wrong"


def test_exits_are_shares_of_the_answers() -> None:
    assert "answers in the last minute: 4; exit 0 75 %, exit 2 25 %" in text()


def test_the_hour_has_a_gap_where_watts_were_not_known() -> None:
    windows = [{"watts": watts} for watts in (1.0, None, 8.0, 0.0)]
    assert "hour    ▂ █▁ 0.00 to 8.00 W" in text(windows=windows)


def test_figures_that_are_old_say_so() -> None:
    assert "these figures are old: no daemon answers" in text(problem="no daemon answers")


def test_accuracy_below_that_of_plans_is_said_to_be_lost() -> None:
    figures = deepcopy(FIGURES)
    recent = figures["models"][0]["recent"]
    recent["over_plan"] = -0.023
    assert "accuracy over that of plans: -0.023, lost to load" in text(figures)
    recent["over_plan"] = 0.004
    assert "accuracy over that of plans: +0.004\n" in text(figures) + "\n"
