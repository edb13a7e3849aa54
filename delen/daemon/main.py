"""The entry point of ``delen-daemon``. What takes long to import is imported once signals are
served."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from delen.daemon.entry_point import add_debug, run_command
from delen.version import VERSION

_COMMANDS = {
    "install": "Install the daemon as a service of systemd, and start it",
    "uninstall": "Stop the service and remove it; state and configuration stay",
    "status": "Show what systemd and the daemon say of it",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of ``delen-daemon``: 0 after a clean stop, 1 on failure, 2 on wrong usage and
    where the configuration cannot be served."""
    return run_command("delen-daemon", arguments, _parser().parse_args, _run)


def _run(options: argparse.Namespace) -> int:
    if options.command is not None:
        from delen.daemon.service import run_service

        return run_service(options)
    if options.print_config:
        from delen.daemon.config import read_config

        sys.stdout.write(read_config(options.config, os.environ).to_toml())
        return 0
    from delen.daemon.signals import SignalPipe

    signals = SignalPipe()
    from delen.daemon.config import read_config
    from delen.daemon.logs import configure_logs
    from delen.daemon.process import Daemon

    config = read_config(options.config, os.environ)
    configure_logs(config["log.level"], config["log.format"])
    return Daemon(config, options.config, signals).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="delen-daemon",
        description="Serve multi-exit networks under per-request bounds.",
        epilog="example: delen-daemon --config /etc/delen/delen.toml",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML configuration")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print what is in force and where each value comes from, and end",
    )
    parser.add_argument("--version", action="version", version=f"delen {VERSION}")
    add_debug(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, what in _COMMANDS.items():
        command = commands.add_parser(
            name, help=what, description=f"{what}.", epilog=f"example: delen-daemon {name}"
        )
        command.add_argument(
            "--user", action="store_true", help="as a service of this user, not of the system"
        )
        if name == "status":
            command.add_argument("--json", action="store_true", help="print JSON")
        else:
            command.add_argument(
                "--root",
                type=Path,
                metavar="DIR",
                help="only change files under DIR, which is to become a machine's /",
            )
        add_debug(command)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
