"""The command ``delen``: one subcommand a module of ``delen.commands``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from delen.errors import ConfigError, DelenError, PowerError
from delen.version import VERSION

COMMANDS = {
    "infer": ("delen.commands.infer", "answer a file under bounds"),
    "plan": ("delen.commands.plan", "say what bounds would buy now"),
    "models": ("delen.commands.models", "list, load and unload models"),
    "profile": ("delen.commands.profile", "measure a bundle on this device"),
    "trace": ("delen.commands.trace", "write a trace: which app asks for what, and when"),
    "simulate": ("delen.commands.simulate", "play a trace on a device that is not here"),
    "bench": ("delen.commands.bench", "replay a trace against a daemon or an engine"),
    "doctor": ("delen.commands.doctor", "look at the device, its power sources and the daemon"),
    "power": ("delen.commands.power", "show power and what limits it, or change the limits"),
    "build": ("multiexit_models.command", "train, calibrate and export a bundle"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of ``delen``: 0 when it worked, 1 when it failed, 2 on wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser = _parser(given)
        options = parser.parse_args(given)
        return int(options.run(options))
    except ConfigError as error:
        print(f"delen: {error}", file=sys.stderr)
        return 2
    except DelenError as error:
        print(f"delen: {error}", file=sys.stderr)
        if isinstance(error, PowerError) and error.remedy is not None:
            print(f"what helps: {error.remedy}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """All the commands' names, and the arguments of the one that is asked for."""
    parser = argparse.ArgumentParser(
        prog="delen",
        description="Multi-exit networks under per-request latency, accuracy and energy bounds.",
        epilog="example: delen infer cat.png --max-latency 20ms",
    )
    parser.add_argument("--version", action="version", version=f"delen {VERSION}")
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
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
