"""The network time of payloads of any size, from those that were sent (Jellyfish, RTSS 2022).

The error-based filter smooths the network times of one size and begins anew where another is sent.
The bandwidth that its value implies, ``payload / (network - 0.9·round trip)``, predicts the others:
``network(p) = p / bandwidth + round trip``. 0.9 is Jellyfish's trust in the round trip.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.client.error_filter import ErrorFilter

TRUST = 0.9
LEAST_SECONDS = 1e-5
"""The least that a payload is believed to take; one network time can be below the round trip."""


class LinkEstimate:
    """``round_trip`` is what a message of no size takes there and back, in seconds (0: unknown).

    ``bandwidth`` is in bytes a second; None before the first answer.
    """

    def __init__(self, round_trip: float = 0.0) -> None:
        self.bandwidth: float | None = None
        self._round_trip = round_trip
        self._filter = ErrorFilter()
        self._index: int | None = None

    def learn(self, index: int, payload: float, network: float) -> None:
        """A frame of option ``index`` and ``payload`` bytes had this network time."""
        if index != self._index:
            self._filter.reset()
            self._index = index
        smoothed = self._filter.learn(network)
        self.bandwidth = payload / max(LEAST_SECONDS, smoothed - TRUST * self._round_trip)

    def predict(self, payloads: Sequence[float]) -> list[float] | None:
        """The network time of each payload in seconds; None where nothing is known."""
        if self.bandwidth is None:
            return None
        return [payload / self.bandwidth + self._round_trip for payload in payloads]
