"""Failures inside the daemon: the first of a kind is logged, all are counted."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import Counter

from delen.errors import DelenError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

_counts: Counter[str] = Counter()
_last: dict[str, float] = {}
_of_disk: dict[str, OSError] = {}
_counting = threading.Lock()


class FailureCounter:
    """Counts the failures at one place, which ``where`` names. Safe for many threads.

    The counts of a name are added up over the whole process, as its log lines are.
    """

    def __init__(self, where: str, log: logging.Logger) -> None:
        self.count = 0
        """Failures counted here."""
        self._where = where
        self._log = log
        self._logged: set[tuple[object, ...]] = set()
        self.add(0)

    def failed(self, error: BaseException, message: str, *args: object) -> None:
        """Count ``error``, and log it unless one of its type was logged with this ``message`` and
        these ``args``. Both are kept: nothing in them may be made up by a client.

        The line has a traceback, unless the error is one of delen's own, or the disk is full or
        read-only.
        """
        self.add(1)
        of_disk = _disk_error(error)
        kind = (type(error), message, *args)
        with _counting:
            _of_disk.pop(self._where, None)
            if of_disk is not None:
                _of_disk[self._where] = of_disk
            if kind in self._logged:
                return
            self._logged.add(kind)
        traceback = None if of_disk is not None or isinstance(error, DelenError) else error
        sentence = f"{message}: %s (delen_internal_failures_total counts further ones)"
        self._log.error(sentence, *args, error, exc_info=traceback)

    def add(self, times: int) -> None:
        """Count failures that are logged elsewhere."""
        with _counting:
            self.count += times
            _counts[self._where] += times
            if times:
                _last[self._where] = time.monotonic()


def failure_counts() -> dict[str, int]:
    """How many failures there were since the start of the process, by where."""
    with _counting:
        return dict(_counts)


def last_failures() -> dict[str, float]:
    """When there was the last failure (``time.monotonic``), by where there was any."""
    with _counting:
        return dict(_last)


def disk_errors() -> dict[str, OSError]:
    """The last failure by where, of those places where the disk was full or read-only."""
    with _counting:
        return dict(_of_disk)


def _disk_error(error: BaseException) -> OSError | None:
    """What says of ``error``, or of its cause, that the disk is full or read-only."""
    for each in (error, error.__cause__):
        if isinstance(each, OSError) and each.errno in _DISK_ERRORS:
            return each
    return None
