"""``delen plan``: what bounds would buy now."""

from __future__ import annotations

import argparse

from delen.commands.common import add_bounds, add_connection, milli, tenant
from delen.core.variant import format_size
from delen.sdk.client import Client
from delen.wire.answers import Plan
from delen.wire.message import write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show the plan for bounds at present costs, and list the exits."
    parser.epilog = "example: delen plan --min-accuracy 0.85"
    add_bounds(parser)
    parser.add_argument("--model", help="name of the model (default: the daemon's default)")
    parser.add_argument("--tenant", type=tenant, default="default", help="whose limits count")
    add_connection(parser)


def run(options: argparse.Namespace) -> int:
    """Status 1 when the bounds cannot be kept, or a limit on energy refuses."""
    with Client(options.url, model=options.model, tenant=options.tenant) as client:
        preview = client.plan(
            max_latency=options.max_latency,
            min_accuracy=options.min_accuracy,
            max_energy=options.max_energy,
        )
    if options.json:
        print(write(Plan.of(preview)).decode())
        return 0 if preview.feasible else 1
    of_sizes = "" if preview.size is None else f"{'size':>9} "
    print(f"{of_sizes}{'exit':>4} {'accuracy':>9} {'latency':>10} {'energy':>10}")
    for point in preview.points:
        is_chosen = (point.size, point.exit) == (preview.size, preview.exit)
        mark = " <-" if is_chosen else "  (dominated)" * point.dominated
        size = "" if point.size is None else f"{format_size(point.size):>9} "
        print(
            f"{size}{point.exit:>4} {point.accuracy:>9.3f} {milli(point.latency, 's'):>10} "
            f"{milli(point.energy, 'J'):>10}{mark}"
        )
    if not preview.feasible:
        print(f"infeasible: {preview.problem}")
        return 1
    print(
        f"runs to exit {preview.exit}"
        + ("" if preview.size is None else f" at {format_size(preview.size)} pixels")
        + (f", stops earlier at confidence {preview.threshold:g}" if preview.threshold else "")
        + f"; expected accuracy {_accuracy(preview.accuracy)}"
        + (f", guaranteed at level {preview.guarantee:g}" if preview.guarantee else "")
        + (f"; {preview.unguaranteed}" if preview.unguaranteed else "")
    )
    return 0


def _accuracy(value: float | None) -> str:
    return "unknown" if value is None else format(value, ".3f")
