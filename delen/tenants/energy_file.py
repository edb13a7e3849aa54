"""The file that keeps the record of energy over restarts."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from delen.core.atomic_file import put_aside, write_atomically
from delen.core.bounds import check_name
from delen.core.energy_status import DayEnergy, EnergyTotal, FinalKind
from delen.core.failures import FailureCounter
from delen.errors import InvalidInput
from delen.tenants.energy_record import Date, EnergyRecord

log = logging.getLogger("delen.energy")

_EVERY = 60.0

_Joules = Annotated[float, Meta(ge=0)]
_Dated = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class _Total(msgspec.Struct, frozen=True):
    tenant: str
    model: str
    exit: int
    kind: FinalKind
    joules: _Joules


class _Day(msgspec.Struct, frozen=True):
    attributed_j: _Joules
    estimated_j: _Joules


class _Document(msgspec.Struct, frozen=True):
    format: Literal["delen-energy"]
    schema: Literal[1]
    totals: list[_Total]
    days: dict[_Dated, dict[str, _Day]]
    undated: dict[str, _Day] = {}


class EnergyFile:
    """The file ``path``. Safe for many threads.

    Only one process at a time keeps it; any other one counts from 0 and keeps nothing. A file that
    is damaged is logged and put aside. Counters are saved before they are shown, so that none falls
    by what a power cut takes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failures = FailureCounter("energy_file", log)
        self._lock: int | None = None
        self._saved_at = -_EVERY
        self._kept: list[EnergyTotal] = []
        self._problem: OSError | None = None
        self._saving = threading.Lock()

    def open(self) -> EnergyRecord:
        """The record as it was kept; an empty one where there is none, or another process has
        it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(
                self._path.with_name(f".{self._path.name}.lock"), os.O_CREAT, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            log.info("energy is counted from 0: another process keeps %s", self._path)
            return EnergyRecord()
        except OSError as error:
            self.close()
            log.warning("energy is counted from 0, and not kept: %s", error)
            return EnergyRecord()
        record = self._read()
        self._kept = record.totals()
        return record

    @property
    def is_kept(self) -> bool:
        """Whether it is this process that keeps it."""
        return self._lock is not None

    def is_due(self, now: float) -> bool:
        """Whether it is time to ``save`` by itself; ``now`` is in seconds, monotonic."""
        return self.is_kept and now >= self._saved_at + _EVERY

    def save(self, now: float, snapshot: Callable[[], EnergyRecord]) -> list[EnergyTotal]:
        """Write the record of this moment, which ``snapshot`` gives, if it is this process that
        keeps it and something has changed; its totals. A failure is logged."""
        with self._saving:
            self._saved_at, record = now, snapshot()
            totals = record.totals()
            if self.is_kept and totals != self._kept:
                try:
                    write_atomically(self._path, _written(totals, record))
                    self._kept, self._problem = totals, None
                except OSError as error:
                    self._problem = error
                    self._failures.failed(error, "the energy of tenants is not kept")
        return totals

    def close(self) -> None:
        """Let another process keep the file. What could not be written is lost, which is logged."""
        if self._problem is not None:
            reason = self._problem.strerror or self._problem
            log.error(
                "the joules of tenants since the last write are lost: %s cannot be written: %s",
                self._path,
                reason,
            )
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self) -> EnergyRecord:
        try:
            document = msgspec.json.decode(self._path.read_bytes(), type=_Document)
            return _record(document)
        except FileNotFoundError:
            return EnergyRecord()
        except (OSError, msgspec.MsgspecError, InvalidInput) as error:
            log.error("energy is counted from 0: %s cannot be read: %s", self._path, error)
        try:
            log.warning("%s was damaged and is now %s", self._path, put_aside(self._path))
        except OSError as error:
            self._failures.failed(error, "the damaged file stays")
        return EnergyRecord()


def _record(document: _Document) -> EnergyRecord:
    days: dict[Date, dict[str, _Day]] = dict(document.days.items())
    if document.undated:
        days[None] = document.undated
    for tenant in (
        *(t.tenant for t in document.totals),
        *(t for day in days.values() for t in day),
    ):
        check_name(tenant, "tenant")
    return EnergyRecord(
        {(each.tenant, each.model, each.exit, each.kind): each.joules for each in document.totals},
        {
            date: {
                tenant: DayEnergy(date, energy.attributed_j, energy.estimated_j)
                for tenant, energy in day.items()
            }
            for date, day in days.items()
        },
    )


def _written(totals: Iterable[EnergyTotal], record: EnergyRecord) -> str:
    days = {
        date: {name: _Day(each.attributed, each.estimated) for name, each in day.items()}
        for date, day in record.days.items()
    }
    undated = days.pop(None, {})
    rows = [_Total(t.tenant, t.model, t.exit, t.kind, t.joules) for t in totals]
    dated = {date: days[date] for date in sorted(filter(None, days))}
    document = _Document("delen-energy", 1, rows, dated, undated)
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"
