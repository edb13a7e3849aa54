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


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of ``delen-daemon``: 0 after a clean stop, 1 on failure, 2 on wrong usage and
    where the configuration cannot be served."""
    return run_command("delen-daemon", arguments, _parser().parse_args, _run)


def _run(options: argparse.Namespace) -> int:
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
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
