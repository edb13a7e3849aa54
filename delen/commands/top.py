"""``delen top``: a daemon's figures, as they change."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from delen.commands.common import TIMES, add_connection, quantity
from delen.commands.figures_text import figures_text
from delen.errors import DaemonUnreachable, Draining
from delen.sdk.client import Client

_HOUR = 3600.0
_COLUMNS = 60
"""Bars of the last hour."""

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The terminal's other screen, without a cursor; and back."""

_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Watch the daemon: power, queue, apps, models, and what is wrong. Ctrl-C ends it.\n"
        "Where the output is no terminal, the figures are printed once. A browser shows the\n"
        "same, and each model's front, at the daemon's address."
    )
    parser.epilog = "example: delen top --interval 2s"
    parser.add_argument("--once", action="store_true", help="print the figures once, and end")
    parser.add_argument(
        "--interval",
        type=quantity(TIMES),
        default=1.0,
        metavar="1s",
        help="from one look to the next",
    )
    add_connection(parser)


def run(options: argparse.Namespace) -> int:
    with Client(options.url) as client:
        if options.json:
            print(json.dumps(client.figures()))
        elif options.once or not sys.stdout.isatty():
            print("\n".join(figures_text(client.figures(), _hour(client))))
        else:
            _watch(client, options.interval)
    return 0


def _hour(client: Client) -> list[dict[str, Any]]:
    return client.power_history(_HOUR, _HOUR / _COLUMNS)


def _watch(client: Client, interval: float) -> None:
    """Until Ctrl-C or SIGTERM. DaemonUnreachable where no daemon answers at first."""
    figures, windows, read_at = client.figures(), _hour(client), time.monotonic()
    problem: str | None = None
    with _other_screen(), suppress(KeyboardInterrupt):
        while True:
            _show(figures_text(figures, windows, problem))
            time.sleep(interval)
            try:
                figures, problem = client.figures(), None
                if time.monotonic() - read_at > _HOUR / _COLUMNS:
                    windows, read_at = _hour(client), time.monotonic()
            except (DaemonUnreachable, Draining) as error:
                problem = str(error)


@contextmanager
def _other_screen() -> Iterator[None]:
    """SIGTERM ends what runs on it as Ctrl-C does, so that the terminal comes back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _show(lines: Sequence[str]) -> None:
    """``lines`` over what the screen shows, as far as it goes."""
    size = shutil.get_terminal_size()
    shown = [line[: size.columns] + _END_OF_LINE for line in lines[: size.lines]]
    sys.stdout.write(_HOME + "\r\n".join(shown) + _END_OF_SCREEN)
    sys.stdout.flush()
