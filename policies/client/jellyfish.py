"""The client half of Jellyfish (RTSS 2022; vuhpdc/jellyfish, ``src/client/controller_client.py``).

The server says which size its plan has for this client. The client sends the largest one up to it
that the link carries at the frame rate: ``bandwidth / payload > fps`` (the source's default,
"best backoff"), with the bandwidth of the error-based filter (``link``). Where none does it sends
the smallest, and without a bound, so that an answer shows when the link is back. At most 32 frames
lack an answer; the source waits then, and a live stream drops.

Without a server's plan the size is that by the rule that its server maps clients by: the time that
the link leaves of the deadline is at least twice the model's latency (a frame may just miss a
batch, and wait for the one before its own).
"""

from __future__ import annotations

from policies.client.api import FrameChoice, FrameReport, StreamView

MOST = 32
BATCHES = 2


class Jellyfish:
    name = "jellyfish"

    def choose(self, view: StreamView) -> FrameChoice | None:
        if len(view.in_flight) > MOST:
            return None
        if view.network is None:
            return FrameChoice(0)
        fits = [
            index
            for index, (option, network) in enumerate(zip(view.options, view.network, strict=True))
            if network - view.round_trip < view.period
            and option.encoding + network + BATCHES * option.latency <= view.deadline
        ]
        if not fits:
            return FrameChoice(0)
        index = max(fits, key=lambda i: view.options[i].accuracy)
        option = view.options[index]
        left = view.remaining - option.encoding - view.network[index]
        return FrameChoice(index, max(option.latency, left))

    def ended(self, report: FrameReport) -> None:
        pass
