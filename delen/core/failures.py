"""Failures inside the daemon: the first of a kind is logged, all are counted."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from delen.errors import DelenError

_counts: Counter[str] = Counter()
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

        The line has a traceback, unless the error is one of delen's own.
        """
        self.add(1)
        kind = (type(error), message, *args)
        with _counting:
            if kind in self._logged:
                return
            self._logged.add(kind)
        traceback = None if isinstance(error, DelenError) else error
        sentence = f"{message}: %s (delen_internal_failures counts further ones)"
        self._log.error(sentence, *args, error, exc_info=traceback)

    def add(self, times: int) -> None:
        """Count failures that are logged elsewhere."""
        with _counting:
            self.count += times
            _counts[self._where] += times


def failure_counts() -> dict[str, int]:
    """How many failures there were since the start of the process, by where."""
    with _counting:
        return dict(_counts)
