"""Tenants' energy budgets on disk, so that a restart neither forgets nor refills them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delen.bounds import check_name
from delen.errors import DelenError, InvalidInput
from delen.fields import Fields
from delen.power_status import Budget

log = logging.getLogger("delen.energy")

FORMAT = "delen-tenants"
SCHEMA = 1


class TenantsError(DelenError):
    """The file of the tenants' budgets is damaged or cannot be written."""

    code = "tenants_invalid"


@dataclass(frozen=True, slots=True)
class Kept:
    """A tenant's budget, and the joules that were spent and not refilled by then."""

    budget: Budget
    spent: float


class TenantFile:
    """The file ``path``, with the budgets as of the moment it was written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, now: float) -> dict[str, Kept]:
        """The budgets, refilled up to ``now`` (seconds since 1970); none where there is no file.

        A file that is damaged is logged and passed over.
        """
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.error("budgets are forgotten: %s cannot be read as JSON: %s", self._path, error)
            return {}
        try:
            return _parse(document, now)
        except DelenError as error:
            log.error("budgets are forgotten: %s: %s", self._path, error)
            return {}

    def save(self, kept: Mapping[str, Kept], now: float) -> None:
        """Write the file whole or not at all. Raises TenantsError naming it."""
        document = {
            "format": FORMAT,
            "schema": SCHEMA,
            "saved_s": now,
            "tenants": {
                name: {
                    "energy_j": own.budget.joules,
                    "period_s": own.budget.period,
                    "spent_j": own.spent,
                }
                for name, own in sorted(kept.items())
            },
        }
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(document, indent=1) + "\n")
            temporary.replace(self._path)
        except OSError as error:
            raise TenantsError(
                f"{self._path} cannot be written: {error.strerror or error}"
            ) from error


def _parse(document: object, now: float) -> dict[str, Kept]:
    root = Fields(document, "the file", TenantsError)
    if root.text("format", default="none") != FORMAT or root.integer("schema") != SCHEMA:
        raise TenantsError(f"this is no {FORMAT} file of schema {SCHEMA}")
    elapsed = max(0.0, now - root.number("saved_s"))
    tenants = root.mapping("tenants")
    root.finish()
    kept = {}
    for name, entry in tenants.items():
        fields = Fields(entry, f"tenants[{name}]", TenantsError)
        try:
            budget = Budget(fields.number("energy_j"), fields.number("period_s"))
        except InvalidInput as error:
            raise TenantsError(f"tenants[{name}]: {error}") from error
        refilled = budget.joules / budget.period * elapsed
        kept[check_name(name, "tenant")] = Kept(
            budget, max(0.0, fields.number("spent_j") - refilled)
        )
        fields.finish()
    return kept
