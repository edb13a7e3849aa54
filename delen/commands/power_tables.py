"""Tables of ``delen power``: past windows, also as CSV, and the energy of apps by day."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

_DAYS = 7
_COLUMNS = ("seconds", "watts", "attributed_j", "idle_j", "other_j", "kind", "price_per_j", "state")


def windows_table(windows: list[dict[str, Any]]) -> str:
    lines = [f"{'ended':>8} {'watts':>7} {'requests':>9} {'idle':>9} {'other':>9}  kind"]
    for window in windows:
        ended = time.strftime("%H:%M:%S", time.localtime(window["time"]))
        watts = "-" if window["watts"] is None else format(window["watts"], ".2f")
        joules = (window["attributed_j"], window["idle_j"], window["other_j"])
        columns = " ".join(f"{'-':>9}" if j is None else f"{j:>7.3f} J" for j in joules)
        lines.append(f"{ended:>8} {watts:>7} {columns}  {window['kind']}")
    return "\n".join(lines)


def windows_csv(windows: list[dict[str, Any]]) -> str:
    """A row each, with the end of the window as the first column and its rails as the last. What is
    unknown is empty; so is a price without limit."""
    rails = sorted({rail for window in windows for rail in window["rails"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", *_COLUMNS, *(f"{rail}_w" for rail in rails)])
    for window in windows:
        ended = datetime.fromtimestamp(window["time"], timezone.utc)
        columns = (window[name] for name in _COLUMNS)
        of_rails = (window["rails"].get(rail) for rail in rails)
        writer.writerow([ended.isoformat(timespec="milliseconds"), *columns, *of_rails])
    return text.getvalue().rstrip("\n")


def apps_table(days_by_app: Mapping[str, list[dict[str, Any]]]) -> str:
    """Watt-hours of each app on the last days that had any, with the part of them that is
    attributed."""
    dates = {day["date"] for days in days_by_app.values() for day in days}
    if not dates:
        return "no app has used energy yet, as far as it is known"
    shown = sorted(dates, key=lambda date: (date is None, date or ""))[-_DAYS:]
    width = max(len("Wh of answers"), *map(len, days_by_app))
    heads = " ".join(f"{date or 'no date':>10}" for date in shown)
    lines = [f"{'Wh of answers':<{width}} {heads}  attributed"]
    for app, days in days_by_app.items():
        by_date = {day["date"]: day for day in days if day["date"] in shown}
        if not by_date:
            continue
        columns = " ".join(
            f"{_total(by_date[date]):>10.4g}" if date in by_date else f"{'-':>10}" for date in shown
        )
        total = sum(map(_total, by_date.values()))
        attributed = sum(day["attributed_wh"] for day in by_date.values())
        share = f"{100 * attributed / total:.0f} %" if total else "-"
        lines.append(f"{app:<{width}} {columns}  {share:>10}")
    return "\n".join(lines)


def _total(day: dict[str, Any]) -> float:
    return float(day["attributed_wh"] + day["estimated_wh"])
