"""Which models crash the process, and which thread runs which model meanwhile."""

from __future__ import annotations

LOADER, PROFILER, FIRST_LANE = 0, 1, 2
"""Rows: of the thread that loads, of the one that measures while nothing is served, and of the
lanes from the first on."""


class CrashGuard:
    """This one notes nothing, and lets every model be served. The daemon's is a CrashLog."""

    def began(self, row: int, model: str) -> None:
        """The calling thread, which alone has ``row``, runs ``model``, or one of its sizes. It need
        not say so again before it runs another one."""

    def ended(self, row: int) -> None:
        """The thread of ``row`` runs no model any more, or another one has it from now on."""

    def reason(self, model: str) -> str | None:
        """Why ``model`` is not to be loaded; None if it is."""
        return None

    def release(self, model: str) -> None:
        """Let ``model`` be loaded again."""
