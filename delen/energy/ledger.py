"""Who got which joules: receipts that follow the answers, and totals by tenant, model and exit;
and what else is counted of each tenant."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from delen.core.energy_status import EnergyTotal, Settled
from delen.core.result import EnergyOutcome, Receipt, Result
from delen.core.work import Split, Work
from delen.tenants.usage import TenantTotals

MAX_TENANTS = 1000
"""Tenants beyond this many are counted together as ``_other``."""

OTHERS = "_other"

Kind = Literal["attributed", "estimated"]


class Meter(NamedTuple):
    """What measures: the name of the source and what it covers."""

    source: str
    scope: str


class Correction(NamedTuple):
    """What a tenant's answer was said to take at first, and what it took in the end, in joules."""

    tenant: str
    estimated: float
    final: float


@dataclass(slots=True)
class _Account:
    """A request's joules so far. ``open`` while some of its work is in no window yet."""

    joules: float = 0.0
    measured: bool = True
    open: bool = False
    result: Result | None = None


class Ledger:
    """Keeps the last ``keep`` answers, and settles them as windows close.

    ``meter`` is what measures, None where nothing does: then the first figure is the last one.
    Not locked: the caller sees to it that one thread at a time is in it. Works, answers and
    windows have to come in the order in which they happened.
    """

    def __init__(self, keep: int, meter: Meter | None) -> None:
        self._keep = keep
        self._meter = meter
        self._accounts: dict[str, _Account] = {}
        self._receipts: OrderedDict[str, Settled] = OrderedDict()
        self._totals: defaultdict[tuple[str, str, int, Kind], float] = defaultdict(float)
        self._tenants: dict[str, TenantTotals] = {}

    def ran(self, work: Work) -> None:
        """A batch ran: the windows that it ran in are still to come."""
        for share in work.shares:
            self._tenant(share.tenant).seconds += work.seconds / work.batch
        if self._meter is None:
            return
        for share in work.shares:
            account = self._accounts.get(share.request_id)
            if account is None:
                account = self._accounts[share.request_id] = _Account()
            account.open = True

    def answered(self, result: Result) -> Correction | None:
        """Take in an answer; its correction where nothing is left to wait for."""
        own, receipt = self._tenant(result.tenant), result.receipt
        own.answers += 1
        own.missed["latency"] += receipt.latency.met is False
        own.missed["accuracy"] += receipt.accuracy.met is False
        self._receipts[result.request_id] = _settled(result, result.receipt, False)
        while len(self._receipts) > self._keep:
            self._receipts.popitem(last=False)
        account = self._accounts.get(result.request_id)
        if account is None:
            self._close(result, result.receipt.energy)
            return None
        account.result = result
        return None if account.open else self._settle(result.request_id, account)

    def failed(self, request_id: str) -> None:
        """A request ended without an answer; nobody will ask for its receipt."""
        self._accounts.pop(request_id, None)

    def refused(self, tenant: str, code: str) -> None:
        """A request of ``tenant`` was refused, or failed, with an error of that ``code``."""
        self._tenant(tenant).refused[code] += 1

    def settle(self, split: Split) -> Iterator[Correction]:
        """Book a window: the corrections of those answers that are settled by it."""
        is_measured = split.kind == "attributed"
        for share, joules in split.by_share.items():
            account = self._accounts.get(share.request_id)
            if account is not None:
                account.joules += joules
                account.measured = account.measured and is_measured
        for request_id in split.complete:
            account = self._accounts.get(request_id)
            if account is None:
                continue
            account.open = False
            if account.result is not None:
                yield self._settle(request_id, account)

    def write_off(self) -> list[Correction]:
        """Settle every answer that still waits for windows with its first figure."""
        corrections = []
        for account in self._accounts.values():
            if account.result is not None:
                first = account.result.receipt.energy
                self._close(account.result, first)
                value = first.value or 0.0
                corrections.append(Correction(account.result.tenant, value, value))
        self._accounts.clear()
        return corrections

    def receipt(self, request_id: str) -> Settled | None:
        """None for one that is unknown, not answered, or forgotten."""
        return self._receipts.get(request_id)

    def totals(self) -> list[EnergyTotal]:
        """Joules of all settled answers."""
        return [EnergyTotal(*key, joules) for key, joules in sorted(self._totals.items())]

    def tenants(self) -> dict[str, TenantTotals]:
        return {
            name: replace(own, refused=Counter(own.refused), missed=+own.missed)
            for name, own in self._tenants.items()
        }

    def _settle(self, request_id: str, account: _Account) -> Correction:
        del self._accounts[request_id]
        assert account.result is not None
        assert self._meter is not None
        result, meter = account.result, self._meter
        first = result.receipt.energy
        outcome = replace(
            first,
            value=account.joules,
            met=None if first.bound is None else account.joules <= first.bound,
            kind="attributed" if account.measured else "estimated",
            source=meter.source if account.measured else first.source,
            scope=meter.scope if account.measured else first.scope,
        )
        self._close(result, outcome)
        return Correction(result.tenant, first.value or 0.0, account.joules)

    def _close(self, result: Result, energy: EnergyOutcome) -> None:
        if result.request_id in self._receipts:
            receipt = result.receipt
            if energy is not receipt.energy:
                receipt = replace(receipt, energy=energy)
            self._receipts[result.request_id] = _settled(result, receipt, True)
        own = self._tenant(result.tenant)
        own.missed["energy"] += energy.met is False
        if energy.value is None:
            return
        kind: Kind = "attributed" if energy.kind == "attributed" else "estimated"
        if kind == "attributed":
            own.attributed += energy.value
        else:
            own.estimated += energy.value
        tenant = self.name(result.tenant)
        self._totals[tenant, result.model, result.exit, kind] += energy.value

    def know(self, tenant: str) -> None:
        """Count ``tenant`` under its own name, however many there are."""
        self._tenants.setdefault(tenant, TenantTotals())

    def name(self, tenant: str) -> str:
        """That under which ``tenant`` is counted."""
        return tenant if tenant in self._tenants or len(self._tenants) < MAX_TENANTS else OTHERS

    def _tenant(self, tenant: str) -> TenantTotals:
        name = self.name(tenant)
        own = self._tenants.get(name)
        if own is None:
            own = self._tenants[name] = TenantTotals()
        return own


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
