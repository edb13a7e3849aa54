"""The error-based filter of network estimates (Kim and Noble, Mobile Network Estimation, 2001).

``E_t = α E_{t-1} + (1 - α) O_t`` with ``α = 1 - err_t / err_max``: a filter that is as quick as its
own error is large. ``err_t = γ err_{t-1} + (1 - γ) |E_{t-1} - O_t|`` and ``err_max`` is the largest
of the last H errors. γ = 0.6 and H = 10, as in the clients of Jellyfish (RTSS 2022) and of Better
Never than Late (SenSys 2021).
"""

from __future__ import annotations

from collections import deque

GAMMA = 0.6
HISTORY = 10


class ErrorFilter:
    """``value`` is the estimate; None before the first observation."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.value: float | None = None
        self._error: float | None = None
        self._errors: deque[float] = deque(maxlen=HISTORY)

    def learn(self, observed: float) -> float:
        """The estimate after ``observed``."""
        if self.value is None:
            self.value = observed
            return observed
        error = abs(self.value - observed)
        if self._error is not None:
            error = GAMMA * self._error + (1 - GAMMA) * error
        self._error = error
        self._errors.append(error)
        largest = max(self._errors)
        new = error / largest if largest else 0.0
        self.value = (1 - new) * self.value + new * observed
        return self.value
