"""Models that crashed the daemon: what does so again and again is not loaded any more."""

from __future__ import annotations

import faulthandler
import logging
import mmap
import os
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from delen.core.atomic_file import put_aside, write_atomically
from delen.core.crash_guard import PROFILER, CrashGuard
from delen.core.variant import model_of

log = logging.getLogger("delen")

IN_A_ROW = 3
"""A model is left out once it has crashed the daemon so many times in a row."""

SETTLED = 600.0
"""Seconds after its start without a crash, after which those before count no more."""

_ROWS, _ROW = 258, 256
_IDENT, _NAME = slice(0, 8), slice(8, _ROW)
"""Of a row: the thread that has it, and the model that it runs or ran last; no name for none."""

_FATAL = re.compile(r"Fatal Python error: (.+)")
_THREAD = re.compile(r"Current thread 0x([0-9a-f]+)")


class _Crashes(msgspec.Struct, forbid_unknown_fields=True):
    """How often, and how the last time."""

    times: int
    how: str


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["delen-crashes"]
    schema: Literal[1]
    models: dict[str, _Crashes]


class CrashLog(CrashGuard):
    """Kept in the folder ``state``, which no other daemon has.

    Threads note which model they run in memory that is a file, so that it outlives the process;
    writing it is no system call. When native code crashes, the interpreter writes which thread it
    was. The next start reads both, and blames the model of that thread. Where it was a thread of
    the backend's own, which the interpreter does not know, it blames the models of all threads.
    SIGKILL and a clean stop blame nobody.
    """

    def __init__(self, state: Path) -> None:
        self._kept = state / "crashes.json"
        self._report = state / "crash.txt"
        self._rows = state / "running"
        self._memory: mmap.mmap | bytearray = bytearray(_ROWS * _ROW)
        self._changing = threading.Lock()
        self._crashes = self._read()
        self._began = time.monotonic()
        self._learn()

    def watch(self) -> None:
        """From now on a crash leaves what the next start needs."""
        try:
            with self._rows.open("w+b") as file:
                os.posix_fallocate(file.fileno(), 0, len(self._memory))  # or a full disk is SIGBUS
                self._memory = mmap.mmap(file.fileno(), len(self._memory))
            self._out = self._report.open("w")
            faulthandler.enable(self._out)
        except OSError as error:
            log.warning("which model crashes the daemon is not known after it: %s", error)
            faulthandler.enable()

    def began(self, row: int, model: str) -> None:
        self._write(row, threading.get_ident(), model)

    def ended(self, row: int) -> None:
        self._write(row, 0, "")

    def reason(self, model: str) -> str | None:
        crashes = self._crashes.get(model)
        if crashes is None or crashes.times < IN_A_ROW:
            return None
        return (
            f"in quarantine: it crashed the daemon {crashes.times} times in a row ({crashes.how})"
        )

    def release(self, model: str) -> None:
        with self._changing:
            if self._crashes.pop(model, None) is not None:
                self._save()

    def blame(self, models: Iterable[str], how: str) -> None:
        """The daemon ended because of ``models``. What others did before counts no more."""
        with self._changing:
            found = {}
            for model, crashes in self._crashes.items():
                if crashes.times >= IN_A_ROW:
                    found[model] = crashes
            for model in models:
                before = self._crashes.get(model)
                found[model] = _Crashes(1 + (before.times if before else 0), how)
            self._crashes = found
            self._save()

    def look(self, now: float) -> None:
        """Forget crashes that are long past; ``now`` is in seconds, ``time.monotonic``."""
        if self._crashes and now - self._began > SETTLED:
            with self._changing:
                lasting = {m: c for m, c in self._crashes.items() if c.times >= IN_A_ROW}
                if lasting != self._crashes:
                    self._crashes = lasting
                    self._save()

    def _write(self, row: int, thread: int, model: str) -> None:
        at = min(row, _ROWS - 1) * _ROW
        whole = thread.to_bytes(8, "little") + model.encode()
        self._memory[at : at + _ROW] = whole[:_ROW].ljust(_ROW, b"\0")

    def _learn(self) -> None:
        """What the process before this one left."""
        try:
            report = self._report.read_text(errors="replace")
            rows = self._rows.read_bytes()
        except OSError:
            return
        if (fatal := _FATAL.search(report)) is None:
            return
        thread = _THREAD.search(report)
        models = _running(rows, int(thread[1], 16) if thread else None)
        try:
            self._report.replace(self._report.with_name("crash-last.txt"))
        except OSError:
            return  # what cannot be put away would be counted at each start
        log.error(
            "the daemon before this one crashed (%s) while it ran %s; %s has the threads",
            fatal[1],
            " and ".join(models) or "no model",
            self._report.with_name("crash-last.txt"),
        )
        self.blame(models, fatal[1])
        for model in models:
            if (reason := self.reason(model)) is not None:
                log.error("%s is %s; POST /v1/models/%s/load ends that", model, reason, model)

    def _read(self) -> dict[str, _Crashes]:
        try:
            return msgspec.json.decode(self._kept.read_bytes(), type=_Document).models
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.error("crashes are forgotten: %s cannot be read: %s", self._kept, error)
        try:
            log.warning("%s was damaged and is now %s", self._kept, put_aside(self._kept))
        except OSError as error:
            log.warning("the damaged file stays: %s", error)
        return {}

    def _save(self) -> None:
        document = _Document("delen-crashes", 1, self._crashes)
        text = msgspec.json.format(msgspec.json.encode(document), indent=1).decode()
        try:
            write_atomically(self._kept, text + "\n")
        except OSError as error:
            log.error("which models crashed the daemon is not kept: %s", error)


def _running(rows: bytes, thread: int | None) -> list[str]:
    """The models to blame for a crash of ``thread``, None where it is not known."""
    found: dict[int, str] = {}
    for at in range(0, len(rows), _ROW):
        row = rows[at : at + _ROW]
        if name := row[_NAME].rstrip(b"\0").decode(errors="replace"):
            found[int.from_bytes(row[_IDENT], "little")] = model_of(name)
            if at == PROFILER * _ROW and thread is None:
                return [model_of(name)]  # nothing else runs meanwhile
    if thread is None:
        return sorted(set(found.values()))
    return [found[thread]] if thread in found else []
