"""The file that keeps what is set for tenants, so that a restart neither forgets it nor refills
budgets."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delen.core.atomic_file import put_aside, write_atomically
from delen.core.bounds import check_name
from delen.core.energy_status import Budget
from delen.core.strict_reader import Fields
from delen.core.tenant import UNSET, TenantSettings
from delen.errors import DelenError, InvalidInput, NotKept
from delen.tenants.moment import Moment

log = logging.getLogger("delen.energy")

FORMAT = "delen-tenants"
SCHEMA = 1


class TenantsError(DelenError):
    """The file of the tenants is damaged."""

    code = "tenants_invalid"


@dataclass(frozen=True, slots=True)
class StoredTenant:
    """A tenant's budget, if it has one, the joules of it that were spent and not refilled by then,
    and its settings."""

    budget: Budget | None = None
    spent: float = 0.0
    settings: TenantSettings = UNSET


class TenantStore:
    """The file ``path``, with the tenants as of the moment it was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_damaged = False

    def load(self, now: Moment) -> dict[str, StoredTenant]:
        """The tenants, their budgets refilled up to ``now``; none where there is no file.

        A file that is damaged is logged and passed over, and the next ``save`` renames it.
        """
        self._is_damaged = False
        try:
            document = json.loads(self._path.read_bytes())
            return _parse(document, now)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, DelenError) as error:
            self._is_damaged = True
            log.error("tenants are forgotten: %s cannot be read: %s", self._path, error)
            return {}

    def save(self, stored: Mapping[str, StoredTenant], now: Moment) -> None:
        """Write the file whole or not at all. Raises NotKept naming it."""
        document = {
            "format": FORMAT,
            "schema": SCHEMA,
            "saved_s": now.wall,
            "boot": now.boot,
            "uptime_s": now.uptime,
            "tenants": {name: _to_json(own) for name, own in sorted(stored.items())},
        }
        try:
            self._put_aside()
            write_atomically(self._path, json.dumps(document, indent=1) + "\n")
        except OSError as error:
            raise NotKept(f"{self._path} cannot be written: {error.strerror or error}") from error

    def _put_aside(self) -> None:
        """Rename a file that could not be read, so that somebody can still look at it."""
        if not self._is_damaged:
            return
        aside = put_aside(self._path)
        self._is_damaged = False
        log.warning("%s was damaged and is now %s", self._path, aside)


def _to_json(stored: StoredTenant) -> dict[str, float]:
    document: dict[str, float] = {}
    if stored.budget is not None:
        document["energy_j"] = stored.budget.joules
        document["period_s"] = stored.budget.period
        document["spent_j"] = stored.spent
    if stored.settings.weight is not None:
        document["weight"] = stored.settings.weight
    if stored.settings.priority is not None:
        document["priority"] = stored.settings.priority
    return document


def _parse(document: object, now: Moment) -> dict[str, StoredTenant]:
    root = Fields(document, "the file", TenantsError)
    if root.text("format", default="none") != FORMAT or root.integer("schema") != SCHEMA:
        raise TenantsError(f"this is not a {FORMAT} file of schema {SCHEMA}")
    saved = Moment(
        root.number("saved_s"),
        root.text("boot", default=None),
        root.number("uptime_s", default=0.0),
    )
    tenants = root.mapping("tenants")
    root.finish()
    stored = {}
    for name, entry in tenants.items():
        fields = Fields(entry, f"tenants[{name}]", TenantsError)
        try:
            check_name(name, "tenant")
            stored[name] = _parse_tenant(fields, now.since(saved))
        except InvalidInput as error:
            raise TenantsError(f"tenants[{name}]: {error}") from error
        fields.finish()
    return stored


def _parse_tenant(fields: Fields, elapsed: float) -> StoredTenant:
    settings = TenantSettings(
        fields.number("weight", default=None), fields.integer("priority", default=None)
    )
    joules = fields.number("energy_j", default=None)
    if joules is None:
        return StoredTenant(settings=settings)
    budget = Budget(joules, fields.number("period_s"))
    refilled = budget.joules / budget.period * elapsed
    return StoredTenant(budget, max(0.0, fields.number("spent_j") - refilled), settings)
