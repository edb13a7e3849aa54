"""The entry point of ``delen-hub``. What takes long to import is imported once signals are
served."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from delen.daemon.entry_point import add_debug, run_command
from delen.errors import ConfigError, MissingExtra
from delen.version import VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of ``delen-hub``: 0 after a clean stop, 1 on failure, 2 on wrong usage and
    where it cannot start."""
    return run_command("delen-hub", arguments, _parser().parse_args, _run)


def _run(options: argparse.Namespace) -> int:
    from delen.daemon.signals import SignalPipe

    signals = SignalPipe()
    from delen.daemon.logs import configure_logs

    try:
        from delen.fleet.config import read_settings
        from delen.fleet.hub import Hub
    except ModuleNotFoundError as error:
        raise ConfigError(str(MissingExtra(f"{error.name} (for the hub)", "fleet"))) from error
    settings = read_settings(options.config)
    configure_logs(settings.log_level, settings.log_format)
    return Hub(settings, signals).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="delen-hub",
        description="Say which daemon of a fleet answers which client.",
        epilog="example: delen-hub --config /etc/delen/hub.toml",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", required=True, help="TOML configuration"
    )
    parser.add_argument("--version", action="version", version=f"delen {VERSION}")
    add_debug(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
