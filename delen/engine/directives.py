"""What a fleet asks of this daemon, for as long as its lease runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from delen.core.fleet_terms import NO_TERMS, FleetTerms
from policies.fleet.api import Ceiling, Directive, Price

log = logging.getLogger("delen.engine")

_FREE = Price()


class Directives:
    """The directive in force. Safe to call from many threads.

    ``keep`` has models in memory until a moment of ``clock``, which is that of leases.
    """

    def __init__(
        self,
        keep: Callable[[Sequence[str], float], None] = lambda names, until: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._directive: Directive | None = None
        self._terms: Mapping[str, FleetTerms] = {}
        self.accepted = 0
        """Directives that were obeyed, with those that withdrew one."""
        self.limited = 0
        """Admitted inputs whose plans a ceiling limited. Counted by who admits them."""

    def obey(self, directive: Directive) -> None:
        """Do as ``directive`` says from when it was said on, in place of what was in force. One
        that names nothing withdraws that. ModelNotFound, and nothing changes, for an unknown model.
        """
        ends = directive.said + directive.lease
        terms = _terms(directive)
        with self._lock:
            self._keep(directive.resident, ends)
            was_led = self._is_in_force()
            is_empty = not (terms or directive.resident)
            self._directive = None if is_empty else directive
            self._terms = terms
            self.accepted += 1
        if was_led and is_empty:
            log.info("the fleet withdrew its directives: the daemon decides alone")
        elif not was_led and not is_empty:
            log.info("the fleet's directives are in force, for %.3g s at a time", directive.lease)

    def in_force(self) -> tuple[Directive, float] | None:
        """The directive and the seconds that are left of its lease; None where the daemon decides
        alone."""
        with self._lock:
            directive = self._directive
            if directive is None or not self._is_in_force():
                return None
            return directive, directive.said + directive.lease - self._clock()

    def terms(self, tenant: str) -> FleetTerms:
        """What it asks of the plans of ``tenant`` now."""
        if self._directive is None:
            return NO_TERMS
        with self._lock:
            return self._terms.get(tenant, NO_TERMS) if self._is_in_force() else NO_TERMS

    def _is_in_force(self) -> bool:
        """Whether there is a directive whose lease runs; one that has run out is forgotten."""
        directive = self._directive
        if directive is None:
            return False
        if self._clock() < directive.said + directive.lease:
            return True
        self._directive, self._terms = None, {}
        log.warning("the fleet's directives ran out: the daemon decides alone")
        return False


def _terms(directive: Directive) -> dict[str, FleetTerms]:
    """By tenant, what ``directive`` asks of its plans."""
    return {
        tenant: _of_tenant(directive.ceilings.get(tenant), directive.prices.get(tenant, _FREE))
        for tenant in {**directive.ceilings, **directive.prices}
    }


def _of_tenant(ceiling: Ceiling | None, price: Price) -> FleetTerms:
    return FleetTerms(
        None if ceiling is None else ceiling.exit,
        None if ceiling is None else ceiling.size,
        price.per_second,
        price.per_joule,
    )
