"""The table and progress bar of ``delen simulate`` and ``delen bench``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def progress_bar(name: str, quiet: bool) -> Callable[[int, int], None] | None:
    """A progress bar on stderr if that is a terminal, else None."""
    if quiet or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        bar = "#" * (30 * done // total)
        print(f"\r[{bar:<30}] {name:<12}", end="", file=sys.stderr, flush=True)
        if done >= total - total // 100:
            print(f"\r{'':<46}\r", end="", file=sys.stderr, flush=True)

    return show


def table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """A line a summary, and the upper bound if it is known."""
    head = summaries[0]
    bound = head["upper_bound"]
    width = max(12, *(len(row["policy"]) for row in summaries))
    lines = [
        f"{head['requests']} requests, {len(head['tenants'])} tenants; effective accuracy counts "
        "right answers within all bounds",
        f"{'policy':<{width}} {'effective':>9} {'of bound':>8} {'answered':>8} {'refused':>8} "
        f"{'missed latency':>14} {'missed accuracy':>15} {'missed energy':>13} {'p50 ms':>8} "
        f"{'p99 ms':>8} {'joules':>8} {'decision µs':>11}  exits",
    ]
    for row in summaries:
        effective = row["effective_accuracy"]
        of_bound = effective / bound if bound and effective is not None else None
        missed, latency = row["missed"], row["latency_ms"]
        lines.append(
            f"{row['policy']:<{width}} {figure(effective, '9.4f')} {figure(of_bound, '8.3f')} "
            f"{row['answered']:>8} {row['refused']:>8} {missed['latency']:>14} "
            f"{missed['accuracy']:>15} {missed['energy']:>13} {figure(latency['p50'], '8.2f')} "
            f"{figure(latency['p99'], '8.2f')} {figure(row['energy_j'], '8.4g')} "
            f"{figure(row['decision_us']['p50'], '11.0f')}  "
            + " ".join(f"{share:.2f}" for share in row["exits"])
        )
    if bound is not None:
        lines.append(f"{'upper bound':<{width}} {bound:>9.4f}")
    if head["label_blind_bound"] is not None:
        lines.append(f"{'label-blind':<{width}} {head['label_blind_bound']:>9.4f} (an estimate)")
    return "\n".join(lines) + "\n"


def streams_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """A line a controller of ``delen simulate --link``, and the upper bound if it is known."""
    head = summaries[0]
    bound = head["upper_bound"]
    lines = [
        f"{head['requests']} frames, {len(head['streams'])} streams; a late or missing answer has "
        "accuracy 0",
        f"{'controller':<12} {'effective':>9} {'of bound':>8} {'answered':>8} {'late':>6} "
        f"{'missed %':>8} {'switches':>8} {'p50 ms':>7} {'p95 ms':>7} {'decision µs':>11}  "
        f"{'sizes p10 p50 p90':<18} not answered",
    ]
    for row in summaries:
        effective, latency = row["effective_accuracy"], row["latency_ms"]
        sizes = " ".join(_height_at(row["sizes"], level) for level in (0.1, 0.5, 0.9))
        causes = ", ".join(f"{count} {cause}" for cause, count in row["dropped"].items())
        lines.append(
            f"{row['controller']:<12} {effective:>9.4f} "
            f"{figure(effective / bound if bound else None, '8.3f')} {row['answered']:>8} "
            f"{row['missed']['latency']:>6} {100 * row['missed_share']:>8.2f} "
            f"{row['switches']:>8} {figure(latency['p50'], '7.1f')} "
            f"{figure(latency['p95'], '7.1f')} {figure(row['decision_us']['p50'], '11.0f')}  "
            f"{sizes:<18} {causes}".rstrip()
        )
    if bound is not None:
        lines.append(f"{'upper bound':<12} {bound:>9.4f}")
    return "\n".join(lines) + "\n"


def _height_at(sizes: Mapping[str, int], level: float) -> str:
    """The height that this share of the frames that were sent does not exceed."""
    left = level * sum(sizes.values())
    for size, count in sizes.items():
        left -= count
        if left <= 0 < count:
            return size.split("x")[0]
    return "-"


def figure(value: float | None, form: str) -> str:
    """``value`` in the format ``form``, or a dash of that width if it is unknown."""
    width = int(form.split(".")[0] or 0)
    return f"{'-':>{width}}" if value is None else f"{value:>{form}}"
