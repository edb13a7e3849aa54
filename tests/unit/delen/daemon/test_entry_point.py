"""Whatever happens, a command ends with a status and one sentence."""

from __future__ import annotations

import argparse
import errno

import pytest

from delen.daemon.entry_point import add_debug, run_command
from delen.errors import ConfigError, InvalidInput, SensorDenied


def ends(raised: BaseException | None, *arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="delen")
    add_debug(parser)

    def run(options: argparse.Namespace) -> int:
        if raised is not None:
            raise raised
        return 0

    return run_command("delen", arguments, parser.parse_args, run)


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (ConfigError("server.port is wrong"), 2, "server.port is wrong"),
        (InvalidInput("the image is empty"), 1, "the image is empty"),
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), 1, "a.csv: No space left"),
        (OSError("strange"), 1, "strange"),
        (MemoryError(), 1, "memory"),
        (RecursionError("maximum recursion depth exceeded"), 1, "nested too deeply"),
        (KeyError("gone"), 1, "KeyError"),
        (ValueError("one\ntwo"), 1, "one two"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_sentence_and_with_debug_its_traceback(
    raised: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(raised) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("delen: ")
    assert said in line
    for option in ("--debug", "--deb"):
        assert ends(raised, option) == status
        *traceback, last = capsys.readouterr().err.splitlines()
        assert traceback[0] == "Traceback (most recent call last):"
        assert last == line


def test_what_helps_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(SensorDenied("no access", "add a group")) == 1
    assert capsys.readouterr().err == "delen: no access\nwhat helps: add a group\n"


def test_a_reader_that_left_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 1
    assert capsys.readouterr().err == ""
    assert ends(None) == 0
