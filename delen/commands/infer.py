"""``delen infer``: answer a file through the daemon."""

from __future__ import annotations

import argparse

from delen.commands.common import add_bounds, add_connection, milli, tenant, whole
from delen.core.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY
from delen.core.result import Receipt, Result
from delen.core.variant import format_size
from delen.sdk.client import Client
from delen.wire import answers as wire
from delen.wire.message import write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Answer an image, a recording, a text or an .npy array under its bounds."
    parser.epilog = "example: delen infer cat.png --max-latency 20ms --top-k 3"
    parser.add_argument("file", metavar="FILE", help="a JPEG, PNG, .wav, .txt (UTF-8) or .npy file")
    add_bounds(parser)
    parser.add_argument("--model", help="name of the model (default: the daemon's default)")
    parser.add_argument("--tenant", type=tenant, default="default")
    parser.add_argument(
        "--priority",
        type=whole(HIGHEST_PRIORITY, LOWEST_PRIORITY),
        help="1 (first) to 9 (default: the tenant's, or 5)",
    )
    parser.add_argument("--top-k", type=whole(1), default=1, help="how many predictions to list")
    parser.add_argument(
        "--best-effort", action="store_true", help="answer even if the bounds cannot be kept"
    )
    add_connection(parser)


def run(options: argparse.Namespace) -> int:
    with Client(options.url, model=options.model, tenant=options.tenant) as client:
        answer = client.infer(
            options.file,
            max_latency=options.max_latency,
            min_accuracy=options.min_accuracy,
            max_energy=options.max_energy,
            priority=options.priority,
            top_k=options.top_k,
            on_infeasible="best_effort" if options.best_effort else "reject",
        )
    if options.json:
        if isinstance(answer, list):
            print(f"[{','.join(write(wire.Result.of(each)).decode() for each in answer)}]")
        else:
            print(write(wire.Result.of(answer)).decode())
    else:
        print("\n".join(_describe(r) for r in (answer if isinstance(answer, list) else [answer])))
    return 0


def _bounds(receipt: Receipt) -> str:
    if receipt.met:
        return "bounds kept"
    if False in (receipt.latency.met, receipt.accuracy.met, receipt.energy.met):
        return "BOUNDS MISSED"
    return "whether the bound on energy was kept is unknown"


def _size(result: Result) -> str:
    return "" if result.size is None else f" at {format_size(result.size)} pixels"


def _describe(result: Result) -> str:
    receipt = result.receipt
    predictions = ", ".join(
        f"{p.label if p.label is not None else p.index} {p.probability:.3f}"
        for p in result.predictions
    )
    expected = receipt.accuracy.expected
    return (
        f"{predictions}\n"
        f"  exit {result.exit} of 0-{result.exits - 1}{_size(result)} ({result.reason}); "
        f"{_bounds(receipt)}\n"
        f"  latency {milli(receipt.latency.value, 's')}, "
        f"energy {milli(receipt.energy.value, 'J')} ({receipt.energy.kind}), "
        f"expected accuracy {'unknown' if expected is None else format(expected, '.3f')}"
        + (f"\n  {receipt.accuracy.unguaranteed}" if receipt.accuracy.unguaranteed else "")
    )
