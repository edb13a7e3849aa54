"""The command ``delen``: one subcommand a module of ``delen.commands``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from delen.daemon.entry_point import add_debug, run_command
from delen.version import VERSION

COMMANDS = {
    "infer": ("delen.commands.infer", "answer a file under bounds"),
    "plan": ("delen.commands.plan", "say what bounds would buy now"),
    "models": ("delen.commands.models", "list, load and unload models"),
    "profile": ("delen.commands.profile", "measure a bundle on this device"),
    "trace": ("delen.commands.trace", "write a trace: which app asks for what, and when"),
    "simulate": ("delen.commands.simulate", "play a trace on a device that is not here"),
    "capacity": ("delen.commands.capacity", "find how many cameras a device keeps up with"),
    "train-policy": ("delen.commands.train_policy", "train a fleet policy in the simulator"),
    "bench": ("delen.commands.bench", "replay a trace against a daemon or an engine"),
    "top": ("delen.commands.top", "watch the device: power, apps, models, and what is wrong"),
    "doctor": ("delen.commands.doctor", "look at the device, its power sources and the daemon"),
    "power": ("delen.commands.power", "show power and what limits it, or change the limits"),
    "build": ("multiexit_models.command", "train, calibrate and export a bundle"),
    "import": ("multiexit_models.imports.command", "make a bundle of an ONNX image classifier"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of ``delen``: 0 when it worked, 1 when it failed, 2 on wrong usage."""
    return run_command(
        "delen",
        arguments,
        lambda given: _parser(given).parse_args(given),
        lambda options: int(options.run(options)),
    )


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """All the commands' names, and the arguments of the one that is asked for."""
    parser = argparse.ArgumentParser(
        prog="delen",
        description="Multi-exit networks under per-request latency, accuracy and energy bounds.",
        epilog="example: delen infer cat.png --max-latency 20ms",
    )
    parser.add_argument("--version", action="version", version=f"delen {VERSION}")
    add_debug(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == asked:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
        add_debug(command)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
