"""Which policies decide, and another dispatch policy for a daemon that serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flask import Response, request

from api.guard import guarded
from api.parse import query_text, read_query, read_request
from api.reply import reply
from delen.engine.runtime import Runtime
from delen.errors import InvalidInput
from delen.wire.policies import Installed, Policies, PolicyChange
from delen.wire.requests import NoFields
from policies.plugins import (
    DISPATCH_POLICIES,
    ENERGY_CONTROLLERS,
    EXIT_POLICIES,
    DamagedPolicy,
    make_dispatch,
    plugin_names,
)

log = logging.getLogger("delen.api")

POLICIES = "/v1/policies"


class PolicyNames(NamedTuple):
    """The configured policies. ``dispatch`` may be another one by now; the others stay until the
    daemon starts again."""

    dispatch: str = "value"
    exit: str = "bounds"
    controller: str = "price"


BUILT_IN = PolicyNames()


class PolicyViews:
    """Views over a Runtime whose other policies are those of ``names``."""

    def __init__(self, runtime: Runtime, names: PolicyNames) -> None:
        self._runtime = runtime
        self._names = names

    def routes(self) -> Sequence[tuple[str, Callable[..., Response], list[str]]]:
        return [(POLICIES, self.policies, ["GET"]), (POLICIES, self.change_policies, ["PUT"])]

    def policies(self) -> Response:
        read_query(NoFields, query_text())
        return reply(self._in_force())

    @guarded
    def change_policies(self) -> Response:
        name = read_request(PolicyChange, query_text(), request.get_data()).dispatch
        known = sorted({*plugin_names(DISPATCH_POLICIES), self._names.dispatch})
        if name not in known:
            raise InvalidInput(f"dispatch {name!r} is none of {', '.join(known)}", field="dispatch")
        before, _ = self._runtime.dispatch()
        policy = make_dispatch(name)
        if isinstance(policy, DamagedPolicy):
            log.error("policies.dispatch: %s; the default decides", policy.problem)
        self._runtime.use_dispatch(policy)
        log.info("the dispatch policy is %s now; it was %s", name, before)
        return reply(self._in_force())

    def _in_force(self) -> Policies:
        dispatch, failures = self._runtime.dispatch()
        groups = (DISPATCH_POLICIES, EXIT_POLICIES, ENERGY_CONTROLLERS)
        return Policies(
            dispatch=dispatch,
            exit=self._names.exit,
            controller=self._names.controller,
            dispatch_failures=failures,
            installed=Installed(*(tuple(plugin_names(group)) for group in groups)),
        )
