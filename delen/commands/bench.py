"""``delen bench``: replay a trace against a daemon, or an engine in this process."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delen.commands.common import (
    LATENCIES,
    address,
    check_once,
    positive,
    quantity,
    read_requests,
    seed,
    whole,
)
from delen.commands.table import figure, progress_bar, table
from delen.daemon.entry_point import INTERRUPTED
from delen.daemon.settings import SWITCH_INTERVAL
from delen.errors import ConfigError

if TYPE_CHECKING:
    from delen.core.bounds import OnInfeasible
    from delen.replay.play import Plan, Played, ReplayMode
    from delen.replay.served import Served
    from delen.simulate.trace import Trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Replay a trace (a CSV file as delen simulate reads it) against a daemon, or against an\n"
        "engine in this process, and print the simulator's table. Every request is sent at its\n"
        "time, however late answers arrive."
    )
    parser.epilog = (
        "example: delen bench --url http://127.0.0.1:8000 --trace day.csv --inputs test.npz --json"
    )
    parser.add_argument(
        "--url", type=address, help="http://HOST:PORT or unix:///PATH; by default it is found"
    )
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        type=Path,
        help="folder of a bundle to serve in this process, with no daemon; may be given several "
        "times, the first is for requests that name no model",
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="dispatch policies, one after another; with --bundle only",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration for --bundle")
    parser.add_argument(
        "--trace",
        type=Path,
        required=True,
        metavar="FILE",
        help="the requests (delen trace writes one)",
    )
    parser.add_argument(
        "--inputs",
        action="append",
        default=[],
        metavar="[MODEL=]PATH",
        help="what to send: .npy; .npz with inputs and labels; a CSV file with the columns file "
        "and label; or a folder with a labels.csv, with a folder for each class, or of files "
        "(default: random inputs)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the inputs' order (default: 0)")
    parser.add_argument(
        "--speed",
        type=positive,
        default=1.0,
        metavar="2",
        help="replay this many times faster",
    )
    parser.add_argument(
        "--clock",
        choices=("daemon", "client"),
        default="daemon",
        help="which latencies count: those of the receipts, or those that this client sees",
    )
    parser.add_argument(
        "--timeout",
        type=quantity(LATENCIES),
        default=30.0,
        metavar="30s",
        help="how long to wait for an answer (default: 30s)",
    )
    parser.add_argument(
        "--in-flight",
        type=whole(1),
        default=512,
        metavar="N",
        help="requests that are due while N are under way are not sent (default: 512)",
    )
    parser.add_argument(
        "--best-effort", action="store_true", help="answer even if the bounds cannot be kept"
    )
    parser.add_argument("--label", help="name of the daemon in the table (default: daemon)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line and policy")


def run(options: argparse.Namespace) -> int:
    if options.bundle and options.url:
        raise ConfigError("give --url or --bundle, not both")
    if (options.policy or options.config) and not options.bundle:
        raise ConfigError("--policy and --config go with --bundle; a daemon has its own")
    check_once(options.policy or (), "--policy")
    trace = read_requests(options.trace)
    summaries: list[dict[str, Any]] = []
    try:
        with closing((_in_process if options.bundle else _over_http)(options, trace)) as replays:
            for played in replays:
                summaries.append(played.summary)
                _warn(played.summary)
                if options.json:
                    print(json.dumps(played.summary), flush=True)
                if played.interrupted:
                    return INTERRUPTED
                if played.problem is not None:
                    raise played.problem
    finally:
        if summaries and not options.json:
            print(table(summaries) + "".join(map(_footer, summaries)), end="")
    return 0


def _over_http(options: argparse.Namespace, trace: Trace) -> Generator[Played, None, None]:
    from delen.replay.http import HttpTarget
    from delen.replay.play import play
    from delen.replay.served import Served, default_of
    from delen.sdk.client import Client

    with Client(options.url, timeout=options.timeout) as client:
        url, models = client.url, client.models()
    default = default_of(models)
    plan = _plan(options, trace, [Served.from_json(model) for model in models], default)
    target = HttpTarget(url, plan.inputs, default, _on_infeasible(options))
    name = options.label or "daemon"
    bar = progress_bar(name, options.json)
    yield play(plan, target, name, _mode(options), progress=bar)


def _in_process(options: argparse.Namespace, trace: Trace) -> Generator[Played, None, None]:
    from delen.bundle.manifest import read_manifest
    from delen.daemon.build_runtime import open_runtime
    from delen.daemon.config import read_config
    from delen.replay.in_process import EngineTarget, FailureCount
    from delen.replay.play import play
    from delen.replay.served import Served

    manifests = [read_manifest(folder)[0] for folder in options.bundle]
    default, specs = manifests[0].name, {each.name: each.input for each in manifests}
    plan = _plan(options, trace, [Served.of_manifest(each) for each in manifests], default)
    config = read_config(options.config, os.environ)
    sys.setswitchinterval(SWITCH_INTERVAL)
    for policy in options.policy or [config["policies.dispatch"]]:
        own = replace(config, values={**config.values, "policies.dispatch": policy})
        failures = FailureCount()
        opened = open_runtime(own, failures, lambda: options.bundle)
        try:
            for name in plan.inputs:
                opened.load(name)
            how = _on_infeasible(options)
            target = EngineTarget(opened.runtime, specs, plan.inputs, default, how)
            bar = progress_bar(policy, options.json)
            yield play(plan, target, policy, _mode(options), failures.count, bar)
        finally:
            opened.close()


def _plan(
    options: argparse.Namespace, trace: Trace, served: Sequence[Served], default: str
) -> Plan:
    from delen.replay.play import make_plan

    names = {model.name for model in served}
    files: dict[str | None, Path] = {}
    for given in options.inputs:
        name, _, path = given.partition("=")
        if name in names and path:
            files[name] = Path(path)
        else:
            files[None] = Path(given)
    plan = make_plan(trace, served, default, files, options.seed)
    if random := [name for name, given in plan.inputs.items() if given.kind == "random"]:
        print(
            f"delen: {', '.join(random)} gets random inputs: real ones end at other exits and with "
            "other accuracies; give --inputs",
            file=sys.stderr,
        )
    return plan


def _mode(options: argparse.Namespace) -> ReplayMode:
    from delen.replay.play import ReplayMode

    return ReplayMode(options.speed, options.timeout, options.in_flight, options.clock)


def _on_infeasible(options: argparse.Namespace) -> OnInfeasible:
    return "best_effort" if options.best_effort else "reject"


def _warn(summary: Mapping[str, Any]) -> None:
    """Warn if the receipts hide what the client saw."""
    seen, kept = summary["client"]["missed_latency"], summary["missed"]["latency"]
    if summary["clock"] == "daemon" and seen - kept > max(5, summary["answered"] // 100):
        late = figure(summary["client"]["sent_late_ms"]["p99"], ".1f")
        print(
            f"delen: {kept} answers missed their latency by the receipts, {seen} by the client's "
            "clock: receipts begin when the daemon sees a request; before that it waits in the "
            "kernel if the daemon is short of processor time, or here if this client is (it sent "
            f"{late} ms late at p99)",
            file=sys.stderr,
        )


def _footer(summary: Mapping[str, Any]) -> str:
    """How the figures of one row were obtained, and what the client saw."""
    client = summary["client"]
    ended = ", ".join(f"{count} {how}" for how, count in client["ended"].items())
    seen, sent_late = (
        " ".join(f"{name} {figure(value, '.2f')}" for name, value in client[key].items())
        for key in ("latency_ms", "sent_late_ms")
    )
    return (
        f"{summary['policy']}: accuracy {summary['accuracy_kind']}, energy "
        f"{summary['energy_kind'] or 'unknown'}, latencies by the {summary['clock']}'s clock\n"
        f"  the client saw {seen} ms, missed latency {client['missed_latency']}; it sent late by "
        f"{sent_late} ms\n"
        f"  {ended or 'nothing ended'}{'' if summary['complete'] else '; the rest was left out'}\n"
    )
