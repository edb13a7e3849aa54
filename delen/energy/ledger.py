"""Receipts that follow the answers: estimated at first, settled as windows close."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from delen.core.energy_status import Settled
from delen.core.handover import total_energy
from delen.core.result import Receipt, Result
from delen.core.work import Split, Work
from delen.tenants.usage import Usage


class Meter(NamedTuple):
    """What measures: the name of the source and what it covers."""

    source: str
    scope: str


class Correction(NamedTuple):
    """The joules of a tenant's answer as charged at first, as they are in the end, and what it took
    at the ``most``, as far as that is known."""

    tenant: str
    charged: float
    final: float
    most: float


@dataclass(slots=True)
class _Unsettled:
    """A request's joules so far, which are ``known`` if those of all its work are. It ``waits``
    while some of its work is in no window yet."""

    joules: float = 0.0
    known: bool = True
    waits: bool = False
    result: Result | None = None
    charged: float = 0.0
    most: float = 0.0


class Ledger:
    """Keeps the last ``keep`` answers, settles them as windows close, and adds their final joules
    to ``usage``.

    ``meter`` is what measures, None where nothing does: then the first figure is the last one.
    Not locked: the caller lets one thread at a time in. Works, answers and windows have to come in
    the order in which they happened.
    """

    def __init__(self, keep: int, meter: Meter | None, usage: Usage) -> None:
        self._keep = keep
        self._meter = meter
        self._usage = usage
        self._unsettled: dict[str, _Unsettled] = {}
        self._receipts: OrderedDict[str, Settled] = OrderedDict()

    def ran(self, work: Work) -> None:
        """A batch ran: the windows that it ran in are still to come."""
        if self._meter is None:
            return
        for share in work.shares:
            own = self._unsettled.get(share.request_id)
            if own is None:
                own = self._unsettled[share.request_id] = _Unsettled()
            own.waits = True

    def answered(self, result: Result, charged: float | None = None) -> Correction | None:
        """Keep an answer, for which so many joules were ``charged`` (None: those of its receipt);
        its correction where nothing is left to wait for."""
        self._receipts[result.request_id] = _settled(result, result.receipt, False)
        while len(self._receipts) > self._keep:
            self._receipts.popitem(last=False)
        own = self._unsettled.get(result.request_id)
        if own is None:
            self._close(result, result.receipt)
            return None
        own.result = result
        own.charged = (result.receipt.energy_here or 0.0) if charged is None else charged
        return None if own.waits else self._settle(result.request_id, own)

    def failed(self, request_id: str) -> None:
        """A request ended without an answer, and so without a receipt."""
        self._unsettled.pop(request_id, None)

    def settle(self, split: Split) -> Iterator[Correction]:
        """Book a window: the corrections of those answers that are settled by it."""
        for share, joules in split.by_share.items():
            own = self._unsettled.get(share.request_id)
            if own is not None:
                own.joules += joules
        for request_id in split.complete:
            own = self._unsettled.get(request_id)
            if own is None:
                continue
            own.waits = False
            own.known = own.known and request_id in split.known
            own.most += split.most.get(request_id, 0.0)
            if own.result is not None:
                yield self._settle(request_id, own)

    def write_off(self) -> list[Correction]:
        """Settle every answer that still waits for windows with its first figure."""
        corrections = []
        for own in self._unsettled.values():
            if own.result is not None:
                self._close(own.result, own.result.receipt)
                corrections.append(Correction(own.result.tenant, *(3 * [own.charged])))
        self._unsettled.clear()
        return corrections

    def receipt(self, request_id: str) -> Settled | None:
        """None for one that is unknown, not answered, or forgotten."""
        return self._receipts.get(request_id)

    def first_receipt(self, result: Result) -> Settled:
        """The receipt of an answer that is still to be kept."""
        return _settled(result, result.receipt, self._meter is None)

    def _settle(self, request_id: str, own: _Unsettled) -> Correction:
        del self._unsettled[request_id]
        assert own.result is not None
        assert self._meter is not None
        result, meter = own.result, self._meter
        receipt = result.receipt
        first, value, parts = receipt.energy, own.joules, receipt.parts
        is_attributed = own.known
        if parts:
            is_attributed = own.known and len(parts) == 1
            parts = tuple(replace(p, energy=value) if p.is_here else p for p in parts)
        total = total_energy(parts) if parts else value
        outcome = replace(
            first,
            value=total,
            met=None if first.bound is None or total is None else total <= first.bound,
            kind="unknown" if total is None else "attributed" if is_attributed else "estimated",
            source=meter.source if is_attributed else first.source,
            scope=meter.scope if is_attributed else first.scope,
        )
        self._close(result, replace(receipt, energy=outcome, parts=parts))
        return Correction(result.tenant, own.charged, own.joules, max(own.most, own.joules))

    def _close(self, result: Result, receipt: Receipt) -> None:
        if result.request_id in self._receipts:
            self._receipts[result.request_id] = _settled(result, receipt, True)
        self._usage.settled(result, receipt)


def _settled(result: Result, receipt: Receipt, is_settled: bool) -> Settled:
    return Settled(
        request_id=result.request_id,
        model=result.model,
        tenant=result.tenant,
        exit=result.exit,
        reason=result.reason,
        receipt=receipt,
        settled=is_settled,
    )
