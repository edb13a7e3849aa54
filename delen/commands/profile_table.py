"""Profiles, and comparisons of instances, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from delen.profile.batch_interference import Pairs, fit
from delen.profile.concurrency import Measured, advise
from delen.profile.profile import HostCosts, Metering, Profile


def profile_table(profile: Profile) -> str:
    """What each segment costs at each batch size."""
    lines = [
        f"{profile.model} on {profile.device.key}, milliseconds a segment and batch",
        f"{'segment':>7} {'batch':>5} {'p50':>8} {'p90':>8} {'p99':>8} {'processor':>9}",
    ]
    for segment, costs in enumerate(profile.segments):
        for batch, cost in sorted(costs.items()):
            latency = cost.latency
            figures = (latency.p50, latency.p90, latency.p99)
            columns = " ".join(f"{1e3 * value:8.3f}" for value in figures)
            lines.append(f"{segment:>7} {batch:>5} {columns} {1e3 * cost.processor:9.3f}")
    if profile.interference is not None:
        factors = ", ".join(f"{factor:.2f}" for factor in profile.interference)
        lines.append(f"times longer while 0, 1, ... other instances run: {factors}")
    if profile.host is not None:
        lines += _host_table(profile.host)
    if profile.energy is not None:
        lines += _energy_table(profile, profile.energy)
    return "\n".join(lines) + "\n"


def _host_table(host: HostCosts) -> list[str]:
    lines = [
        "milliseconds of the engine's own code: "
        f"a request {1e3 * host.request:.3f}, a batch {1e3 * host.batch:.3f}, each of its samples "
        f"{1e3 * host.task:.3f}, an answer {1e3 * host.answer:.3f}"
    ]
    if (stretch := host.stretch) is not None:
        lines.append(
            f"while serving, segments take {stretch.p50:.2f} times their p50 (p90 "
            f"{stretch.p90:.2f}, p99 {stretch.p99:.2f})"
        )
    return lines


def _energy_table(profile: Profile, metering: Metering) -> list[str]:
    lines = [
        f"millijoules a segment and batch by {metering.source} ({metering.scope}), of "
        f"{metering.blocks} blocks of {metering.block_seconds:g} s; idle takes "
        f"{metering.idle_watts:.2f} W",
        f"{'segment':>7} {'batch':>5} {'marginal':>9} {'95 %':>20} {'gross':>9}",
    ]
    for segment, costs in enumerate(profile.segments):
        for batch, cost in sorted(costs.items()):
            if cost.energy is None:
                continue
            low, high = cost.energy_interval or (cost.energy, cost.energy)
            interval = f"{1e3 * low:.3f} .. {1e3 * high:.3f}"
            gross = "" if cost.gross is None else f"{1e3 * cost.gross:9.3f}"
            lines.append(f"{segment:>7} {batch:>5} {1e3 * cost.energy:9.3f} {interval:>20} {gross}")
    return lines


def instances_table(rows: Sequence[Measured]) -> str:
    """What instances and threads do, and which are best."""
    lines = [
        "the whole network on all instances at once, milliseconds",
        f"{'instances':>9} {'threads':>7} {'batch':>5} {'samples/s':>9} {'p50':>8} {'p95':>8}",
        *(
            f"{row.instances:>9} {row.threads:>7} {row.batch:>5} {row.rate:9.0f} "
            f"{1e3 * row.p50:8.3f} {1e3 * row.p95:8.3f}"
            for row in rows
        ),
    ]
    for purpose, row in zip(("the most work", "a single request"), advise(rows), strict=True):
        lines.append(
            f"best for {purpose}: device.instances = {row.instances}, "
            f"device.threads = {row.threads}"
        )
    return "\n".join(lines) + "\n"


def pairs_table(pairs: Pairs) -> str:
    """Which batch sizes slow which others, and how well that is told from the sizes alone."""
    sizes = sorted({own for own, _ in pairs})
    lines = [
        "times longer a batch (row) takes beside batches of another instance (column)",
        " ".join([f"{'batch':>5}", *(f"{size:>5}" for size in sizes)]),
        *(
            " ".join([f"{own:>5}", *(f"{pairs[own, other]:5.2f}" for other in sizes)])
            for own in sizes
        ),
    ]
    if len(sizes) > 2:
        fitted = fit(pairs)
        lines.append(
            f"predicted from the sizes, a pair that was left out is off by {fitted.held_out:.0%}; "
            f"with one factor for all by {fitted.held_out_of_one:.0%}"
        )
    return "\n".join(lines) + "\n"
