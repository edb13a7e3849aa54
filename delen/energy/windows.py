"""Accounting by windows: each is closed, shared out among requests, and settled on receipts."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from delen.core.energy_status import (
    AttributionStatus,
    BoardEnergy,
    Settled,
    SourceHealth,
    WindowStatus,
)
from delen.core.failures import FailureCounter
from delen.core.work import Split, Work
from delen.energy.accounts import TRUSTED, Accounts
from delen.energy.admission import Ended, Event, Refused
from delen.energy.history import History
from delen.energy.ledger import Correction, Ledger, Meter
from delen.profile.profile import Profile
from delen.tenants.energy_record import EnergyRecord
from delen.tenants.usage import MAX_TENANTS, Usage
from power.attribution.attribution import LONGEST_WORK, Attributor
from power.sources.sampler import Sampler
from power.sources.series import Samples

log = logging.getLogger("delen.energy")

_REPORT_DELAY = 0.1
"""Seconds after which a batch that ended in a window has been reported."""


class AccountingStatus(NamedTuple):
    """The last closed ``window`` (None: there is none yet) and how many there were. ``dynamic`` and
    ``other`` are its watts of requests and of neither requests nor idle, ``static`` what was learnt
    of the device; None is unknown. ``attribution`` says how far all this can be believed."""

    window: WindowStatus | None
    windows: int
    board_energy: BoardEnergy
    dynamic: float | None
    other: float | None
    static: float | None
    attribution: AttributionStatus


class WindowAccounting:
    """Takes what ran and what was answered, and closes windows of ``seconds``.

    Without a ``sampler`` of a sensor every window is estimated. What only reads (``receipt``,
    ``usage``, ``status``) takes what is ``pending`` into account and changes nothing. Not locked:
    the caller lets one thread at a time in.
    """

    def __init__(
        self,
        sampler: Sampler | None,
        accounts: Accounts,
        seconds: float,
        receipts: int,
        clock: Callable[[], float] = time.monotonic,
        record: EnergyRecord | None = None,
        most_tenants: int = MAX_TENANTS,
    ) -> None:
        self._sampler = sampler
        self._is_measured = sampler is not None and sampler.source.kind == "measured"
        self._accounts = accounts
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._rails: defaultdict[str, list[float]] = defaultdict(list)
        self._profiles: dict[str, Profile] = {}
        self._failures = FailureCounter("attribution", log)
        self._published = 0
        meter = None
        if sampler is not None and self._is_measured:
            meter = Meter(sampler.source.name, sampler.source.scope)
        self._usage = Usage(record, most=most_tenants)
        self.ledger = Ledger(receipts, meter, self._usage)
        self._latest: Split | None = None
        self.history = History()
        self.attributor = Attributor()

    def receipt(self, request_id: str, pending: Sequence[Event] = ()) -> Settled | None:
        """None for a request that is unknown, not answered, or forgotten."""
        for event in pending:
            if isinstance(event, Ended) and event.share.request_id == request_id and event.result:
                return self.ledger.first_receipt(event.result)
        return self.ledger.receipt(request_id)

    def usage(self, pending: Iterable[Event] = ()) -> Usage:
        """What tenants used until now."""
        usage, now = self._usage.copy(), self._clock()
        for event in pending:
            self._count(usage, now, event)
            if isinstance(event, Ended) and event.result and not self._is_measured:
                usage.settled(event.result, event.result.receipt)
        return usage

    def status(self) -> AccountingStatus:
        split, dynamic, other = self._latest, None, None
        if split is not None:
            seconds = split.ended - split.began
            dynamic = split.attributed / seconds
            other = None if split.other is None else split.other / seconds
        return AccountingStatus(
            self.history.latest,
            self.history.count,
            self.history.energy,
            dynamic,
            other,
            self.attributor.static_watts,
            self.attributor.status(),
        )

    @property
    def doubt(self) -> float:
        """By how much of themselves joules may be off before anything is known of them; 0 where
        nothing is measured that could tell."""
        spreads = [self._accounts.spread(profile) for profile in self._profiles.values()]
        return max(spreads, default=0.0) if self._is_measured else 0.0

    def know(self, tenant: str) -> None:
        """Count ``tenant`` under its own name, however many there are."""
        self._usage.know(tenant)

    def add_model(self, profile: Profile) -> None:
        """Expect work of the model of ``profile``. What was learnt with an earlier profile of that
        model corrects it no more. The first one says what the device draws idle, where nothing has
        been measured yet."""
        spread, metering = self._accounts.spread(profile), profile.energy
        is_first = not self._profiles and self.attributor.static_watts is None
        if is_first and metering is not None and spread == TRUSTED:
            self.attributor = Attributor(metering.idle_watts)
        self._profiles[profile.model] = profile
        self.attributor.forget(profile.model)
        self.attributor.trust(profile.model, spread)
        self._publish()

    def invalidate(self, why: str) -> None:
        """The device is another one from now on: its mode, clocks or throttling changed."""
        self.attributor.reset(why)

    def enter(self, events: Iterable[Event]) -> list[Correction]:
        """Take in what happened; the corrections of answers that are settled at once. An event that
        fails is counted, and takes no other with it."""
        corrections: list[Correction | None] = []
        now = self._clock()
        for event in events:
            try:
                corrections.append(self._enter(now, event))
            except Exception as error:
                self._failures.failed(error, "the energy of a batch or a request is not counted")
        return [correction for correction in corrections if correction is not None]

    def _enter(self, now: float, event: Event) -> Correction | None:
        self._count(self._usage, now, event)
        if isinstance(event, Work):
            if self._sampler is not None:
                self.attributor.add(event)
            self.ledger.ran(event)
        elif isinstance(event, Ended):
            if event.result is not None:
                return self.ledger.answered(event.result, event.charged)
            self.ledger.failed(event.share.request_id)
        return None

    def _count(self, usage: Usage, now: float, event: Event) -> None:
        if isinstance(event, Work):
            usage.ran(now, event)
        elif isinstance(event, Refused):
            usage.refused(now, *event)
        elif event.result is not None:
            usage.answered(now, event.result)

    def note(self, rails: Mapping[str, float]) -> None:
        """Take in the watts of the rails for the mean of the present window."""
        for name, watts in rails.items():
            self._rails[name].append(watts)

    def close_due(self, price: float, state: SourceHealth) -> list[Correction]:
        """Close every window that is over and whose readings are there, or will not come. Where
        there is no source, there are none."""
        corrections: list[Correction] = []
        while self._is_due(self._clock(), state):
            corrections += self._close(price, state)
        return corrections

    def _is_due(self, now: float, state: SourceHealth) -> bool:
        ended = self._began + self._seconds
        if self._sampler is None or now < ended + _REPORT_DELAY:
            return False
        if not self._is_measured or state == "degraded":
            return True
        covered = self._sampler.covered()
        is_covered = covered is not None and covered >= ended
        return is_covered or now > ended + self._sampler.stalled_after

    def _close(self, price: float, state: SourceHealth) -> list[Correction]:
        began, ended = self._began, self._began + self._seconds
        self._began = ended
        samples = None if self._sampler is None else _samples(self._sampler, began, ended)
        measured = samples if self._is_measured else None
        try:
            split = self.attributor.close(began, ended, measured)
        except Exception as error:
            self._failures.failed(
                error, "a window's energy stays estimated: it cannot be attributed"
            )
            return self._write_off()
        self._latest = split
        watts = None if samples is None else samples.energy(began, ended) / (ended - began)
        self.history.add(
            WindowStatus(
                time=time.time() - (self._clock() - ended),
                seconds=ended - began,
                watts=watts,
                rails={name: sum(seen) / len(seen) for name, seen in self._rails.items()},
                attributed=split.attributed,
                idle=split.idle,
                other=split.other,
                kind=split.kind,
                price=price,
                state=state,
            ),
            split,
        )
        self._rails.clear()
        self._publish()
        return list(self.ledger.settle(split))

    def _publish(self) -> None:
        """Let plans and receipts know the factors, where one has changed notably."""
        if self.attributor.revision == self._published:
            return
        self._published = self.attributor.revision
        factor = self.attributor.factor
        self._accounts.factors.publish(
            {
                model: tuple(factor(model, k) for k in range(len(profile.segments)))
                for model, profile in self._profiles.items()
            }
        )

    def _write_off(self) -> list[Correction]:
        """Start the attribution anew after it failed; what was open stays as it was estimated."""
        self.attributor, self._published = Attributor(), -1
        for profile in self._profiles.values():
            self.add_model(profile)
        return self.ledger.write_off()


def _samples(sampler: Sampler, began: float, ended: float) -> Samples | None:
    """The samples of a window, and of some seconds before it where there is no gap: these may have
    waited for works that were still running."""
    longer = sampler.window(began - LONGEST_WORK, ended)
    return sampler.window(began, ended) if longer is None else longer
