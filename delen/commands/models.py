"""``delen models``: list, load and unload models."""

from __future__ import annotations

import argparse
import json
from typing import Any

from delen.commands.common import add_connection
from delen.core.variant import format_size
from delen.sdk.client import Client

NO_GUARANTEE = "; no floor is guaranteed: the weights may have seen the calibration data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the daemon's models, or load or unload one."
    parser.epilog = "example: delen models --load cifar10-resnet"
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--load", metavar="NAME")
    change.add_argument("--unload", metavar="NAME")
    add_connection(parser)


def run(options: argparse.Namespace) -> int:
    with Client(options.url) as client:
        if options.load is not None:
            client.load(options.load)
        elif options.unload is not None:
            client.unload(options.unload)
        models = client.models()
    if options.json:
        print(json.dumps(models))
        return 0
    for model in models:
        shape = "x".join(map(str, model["input"]["shape"]))
        sizes = [format_size(size) for size in model.get("sizes", ())]
        problem = f" ({model['problem']})" if model["problem"] else ""
        print(
            f"{model['name']} {model['version']}: {model['state']}{problem}, "
            f"{len(model['exits'])} exits, {model['input']['dtype']} {shape}"
            f"{' or ' * bool(sizes)}{', '.join(reversed(sizes[:-1]))}, "
            f"{model['classes']} classes{_calibrated_on(model.get('calibration'))}"
            f"{', default' if model['default'] else ''}"
            f"{NO_GUARANTEE if model['held_out'] == 'unknown' else ''}"
        )
    return 0


def _calibrated_on(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return ""
    groups = "" if calibration["groups"] is None else f" in {calibration['groups']} groups"
    return f", calibrated on {calibration['samples']} samples{groups}"
