"""The progress of a build, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any

SHOWN_AFTER_S = 1.0
"""Shorter stages show their name and no bar."""


class Bar:
    """Names each stage, with a bar and the time left for stages that count steps."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._began = time.time()

    def stage(self, name: str) -> None:
        self.note(f"{name} ...")

    def note(self, sentence: str) -> None:
        """Print ``sentence`` below the bar of the stage before, which ends."""
        self.close()
        print(sentence, file=sys.stderr, flush=True)

    def step(self, done: int, total: int, loss: float) -> None:
        """Training has done ``done`` of ``total`` steps, perhaps some of them before a restart."""
        self._show(done, total, "step", initial=done - 1)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def file(self, done: int, total: int) -> None:
        """``done`` of ``total`` files are read."""
        self._show(done, total, "file", initial=0)

    def segment(self, done: int, total: int) -> None:
        """``done`` of ``total`` segments are exported."""
        self._show(done, total, "segment", initial=0)

    def sample(self, done: int, total: int) -> None:
        """``done`` of ``total`` samples are answered, measured or read."""
        self._show(done, total, "sample", initial=0)

    def part(self, done: int, total: int) -> None:
        """``done`` of ``total`` parts of a stage are done, whatever they are."""
        self._show(done, total, "part", initial=0)

    def _show(self, done: int, total: int, unit: str, initial: int) -> None:
        if self._bar is not None and self._is_of_another(done, total, unit):
            self.close()
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, unit=unit, initial=initial, file=sys.stderr, delay=SHOWN_AFTER_S
            )
            self._bar.start_t = self._began  # the first item has taken time, too
        self._bar.update(done - self._bar.n)

    def _is_of_another(self, done: int, total: int, unit: str) -> bool:
        return (self._bar.total, self._bar.unit) != (total, unit) or done < self._bar.n

    def close(self) -> None:
        """End the bar; the next one counts its time from here."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._began = time.time()
