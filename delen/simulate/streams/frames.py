"""What became of the frames of a stream, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.client.stream_state import DropCause


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """One row a frame, in the order of capture.

    ``index`` is the option that was sent, -1 where none was; ``captured``, ``sent`` and
    ``answered`` are seconds of the run, NaN where it did not happen. ``exit`` and ``correct`` (a
    probability) are of what the daemon answered, also where nobody waited for it any more; -1 and
    0 where it did not. ``dropped`` counts the frames without an answer by cause.
    """

    captured: NDArray[np.float64]
    index: NDArray[np.int8]
    sent: NDArray[np.float64]
    answered: NDArray[np.float64]
    exit: NDArray[np.int8]
    correct: NDArray[np.float64]
    dropped: Mapping[DropCause, int]
    decision_seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.captured)

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds from capture to answer, NaN without one."""
        return self.answered - self.captured

    def in_time(self, deadline: float) -> NDArray[np.bool_]:
        """Which frames were answered within ``deadline`` seconds of their capture."""
        kept: NDArray[np.bool_] = np.nan_to_num(self.latency, nan=np.inf) <= deadline
        return kept

    def effective(self, deadline: float) -> float:
        """Mean accuracy, where a late or missing answer has 0."""
        return float((self.correct * self.in_time(deadline)).mean()) if len(self) else 0.0

    @property
    def switches(self) -> int:
        """How often a frame was sent at another size than the one sent before it."""
        return int(np.count_nonzero(np.diff(self.index[self.index >= 0])))
