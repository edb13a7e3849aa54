"""How every command ends: with its status, and one sentence where it failed."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from delen.errors import ConfigError, DelenError, PowerError

INTERRUPTED = 130
"""The status after Ctrl-C, as shells give it."""


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The option ``--debug``, of a command and of each of its subcommands."""
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the traceback of an error",
    )


def run_command(
    program: str,
    arguments: Sequence[str] | None,
    read: Callable[[Sequence[str]], argparse.Namespace],
    run: Callable[[argparse.Namespace], int],
) -> int:
    """``run`` what ``read`` makes of the ``arguments``, those of the process where they are None.

    The exit status is that of ``run``; 2 for wrong usage; 1 for any other error, which one sentence
    on stderr names; 130 after Ctrl-C. A reader of the output who leaves early gets no sentence.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        try:
            options = read(given)
            debug = "debug" in options
            return run(options)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt as error:
        status = INTERRUPTED
        if sys.stderr is not None and sys.stderr.isatty():
            print(file=sys.stderr)  # below ^C and a progress bar
        _say(program, "interrupted", error if debug else None)
    except BrokenPipeError as error:
        status = 1
        if debug:
            _say(program, str(error), error)
    except Exception as error:
        status = 2 if isinstance(error, ConfigError) else 1
        _say(program, _sentence(error), error if debug else None)
    _drop_output()
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, PowerError) and error.remedy is not None:
        return f"{error}\nwhat helps: {error.remedy}"
    if isinstance(error, DelenError):
        return str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names, error.strerror])
    if isinstance(error, MemoryError):
        return f"the memory is not enough{f': {error}' if str(error) else ''}"
    if isinstance(error, RecursionError):
        return "something is nested too deeply (--debug shows where)"
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


def _say(program: str, sentence: str, error: BaseException | None) -> None:
    with suppress(OSError, ValueError):
        if error is not None:
            traceback.print_exception(error)
        print(f"{program}: {sentence}", file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Write nothing more to a stdout that refuses it, at the end of the process either."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
