"""``delen simulate --fleet``: play a site of several nodes under fleet policies."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from delen.commands.common import check_once
from delen.commands.table import figure
from delen.errors import DelenError


def run(options: argparse.Namespace) -> int:
    from delen.simulate.fleet.plots import save_plots
    from delen.simulate.fleet.run import play
    from delen.simulate.fleet.site_file import read_site
    from policies.plugins import FLEET_POLICIES, make_fleet, plugin_names

    site = read_site(options.fleet)
    names = options.policy or sorted(
        plugin_names(FLEET_POLICIES), key=lambda n: (n != "default", n)
    )
    check_once(names, "--policy")
    policies = [make_fleet(name) for name in names]
    logs, summaries = [], []
    for policy in policies:
        logs.append(play(site, policy, options.seed))
        summaries.append(logs[-1].summary())
        if options.json:
            print(json.dumps(summaries[-1]), flush=True)
    if not options.json:
        print(fleet_table(summaries), end="")
    if options.plots is not None:
        try:
            files = save_plots(logs, options.plots)
        except OSError as error:
            raise DelenError(f"the plots cannot be written: {error}") from error
        print(f"written: {', '.join(map(str, files))}", file=sys.stderr)
    return 0


def fleet_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """A line a policy, then a line a client and node with a column a policy."""
    head = summaries[0]
    lines = [
        f"{head['requests']} frames, {len(head['clients'])} clients, {len(head['nodes'])} nodes; "
        "effective accuracy counts answers within their deadline",
        f"{'policy':<16} {'effective':>9} {'answered':>8} {'late':>5} {'refused':>7} "
        f"{'unanswered':>10} {'not sent':>8} {'p50 ms':>7} {'p99 ms':>7} {'joules':>8} "
        f"{'decision ms':>11}",
    ]
    for row in summaries:
        latency = row["latency_ms"]
        lines.append(
            f"{row['policy']:<16} {row['effective_accuracy']:>9.4f} {row['answered']:>8} "
            f"{row['missed']:>5} {row['refused']:>7} {row['dropped']['unanswered']:>10} "
            f"{_not_sent(row):>8} {figure(latency['p50'], '7.1f')} "
            f"{figure(latency['p99'], '7.1f')} {row['energy_j']:>8.4g} "
            f"{figure(row['decision_ms']['p99'], '11.2f')}"
        )
    names = [row["policy"] for row in summaries]
    widths = [max(9, len(name)) for name in names]
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "effective accuracy of each client": lambda row: f"{row['effective_accuracy']:.4f}",
        "frames not sent": lambda row: str(_not_sent(row)),
        "switches of size": lambda row: str(row["switches"]),
    }
    for title, column in columns.items():
        lines += ["", title.ljust(34) + _row(names, widths)]
        for name, client in head["clients"].items():
            named = f"{name} ({client['controller']})"
            values = [column(row["clients"][name]) for row in summaries]
            lines.append(f"  {named:<32}" + _row(values, widths))
    lines += ["", "utilisation of each node".ljust(34) + _row(names, widths)]
    for node in head["nodes"]:
        values = [f"{row['nodes'][node]['utilisation']:.2f}" for row in summaries]
        lines.append(f"  {node:<32}" + _row(values, widths))
    return "\n".join(lines) + "\n"


def _not_sent(row: Mapping[str, Any]) -> int:
    return sum(count for cause, count in row["dropped"].items() if cause != "unanswered")


def _row(values: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
