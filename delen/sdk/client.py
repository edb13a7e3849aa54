"""The SDK: ``infer`` and ``Client``, over TCP or a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

import httpx

from delen.core.bounds import Bounds, OnInfeasible
from delen.core.energy_status import UNCHANGED, Battery, Settled, Unchanged
from delen.core.guarantee import Feedback
from delen.core.plan import Preview
from delen.core.result import EnergyOutcome
from delen.sdk.inputs import Input
from delen.sdk.polling import wait_settled
from delen.sdk.requests import (
    RETRIES,
    Call,
    Calls,
    check_open,
    connection_settings,
    find_url,
    unix_path,
    unreachable,
)
from delen.wire.answers import feedback_from_json, preview_from_json
from delen.wire.power import settled_from_json


class Client:
    """A connection pool to one daemon. Safe to share between threads.

    ``url`` is ``http://HOST:PORT`` or ``unix:///PATH``; by default ``DELEN_URL``, the daemon's
    sockets, and TCP port 8000 are tried in this order. ``timeout`` is how many seconds to wait
    for an answer, queueing included. ``token`` (by default from the file that
    ``DELEN_TOKEN_FILE`` names) opens guarded addresses. Every method raises DaemonUnreachable
    when there is no answer, and the daemon's own error when it refuses.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        tenant: str = "default",
        timeout: float = 30.0,
        token: str | None = None,
    ) -> None:
        self._calls = Calls(model, tenant)
        self.url, settings = connection_settings(url, timeout, token)
        transport = httpx.HTTPTransport(uds=unix_path(self.url), retries=RETRIES)
        self._http = httpx.Client(transport=transport, **settings)

    def infer(
        self,
        x: Input,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        model: str | None = None,
        stream: str | None = None,
        priority: int | None = None,
        top_k: int = 1,
        on_infeasible: OnInfeasible = "reject",
        timeout: float | None = None,
    ) -> Any:
        """Answer ``x`` under its bounds: seconds, a fraction, joules.

        ``x`` is a numpy array, a PIL image, a path, or encoded bytes. Returns a Result, or a list
        of them when ``x`` is a batch; ``result.receipt.energy.settled()`` waits for its final
        energy, through this client. Raises InvalidInput, ModelNotFound, InfeasibleBound,
        BudgetExhausted, Overloaded or DaemonUnreachable.
        """
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        call = self._calls.infer(
            x,
            model,
            bounds,
            timeout,
            stream=stream,
            priority=priority,
            top_k=top_k,
            on_infeasible=on_infeasible,
        )
        return self._calls.results(self._send(call), self._settle)

    def plan(
        self,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        model: str | None = None,
    ) -> Preview:
        """What these bounds would buy now, without an input."""
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        return preview_from_json(self._send(self._calls.plan(model, bounds)))

    def feedback(self, labels: Mapping[str, int | str], *, model: str | None = None) -> Feedback:
        """Post the right classes, as indices or names, of past answers by their request id.

        They show the daemon whether what it promised still holds. They should be of all answers,
        or of some chosen without looking at the answers.
        """
        return feedback_from_json(self._send(self._calls.feedback(model, labels)))

    def models(self) -> list[dict[str, Any]]:
        """The models that the daemon knows, as ``GET /v1/models`` describes them."""
        models: list[dict[str, Any]] = self._send(Call("GET", "/v1/models"))["models"]
        return models

    def load(self, model: str) -> dict[str, Any]:
        """Load a model, and return its description once it is ready."""
        description: dict[str, Any] = self._send(self._calls.change(model, "load"))
        return description

    def unload(self, model: str) -> dict[str, Any]:
        """Unload a model that no request is using."""
        description: dict[str, Any] = self._send(self._calls.change(model, "unload"))
        return description

    def power(self) -> dict[str, Any]:
        """Watts now, how they are known and what limits them, as ``GET /v1/power`` tells."""
        description: dict[str, Any] = self._send(Call("GET", "/v1/power"))
        return description

    def power_history(self, seconds: float = 600.0) -> list[dict[str, Any]]:
        """The accounting windows of the last ``seconds`` (1 to 3600), oldest first, as
        ``GET /v1/power/history`` describes them.
        """
        call = self._calls.power_history(seconds)
        windows: list[dict[str, Any]] = (self._send(call))["windows"]
        return windows

    def set_power(
        self,
        *,
        watt_cap: float | Unchanged | None = UNCHANGED,
        battery: Battery | Unchanged | None = UNCHANGED,
        mode: str | Unchanged = UNCHANGED,
    ) -> dict[str, Any]:
        """Change what is given: a cap on the watts, a battery to make last (both may be None, for
        none), or the power mode. Returns what ``power`` would. Raises InvalidInput, Forbidden, or
        PowerError where the mode cannot be had.
        """
        call = self._calls.set_power(watt_cap, battery, mode)
        description: dict[str, Any] = self._send(call)
        return description

    def request(self, request_id: str) -> Settled:
        """A past request as it is known by now, its receipt once the energy is final.

        NotFound when the daemon does not know it, or has forgotten it.
        """
        return settled_from_json(self._send(self._calls.request(request_id)))

    def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return wait_settled(lambda: self.request(request_id), request_id, timeout)

    def tenants(self) -> dict[str, Any]:
        """The tenants that were seen or of which something is set, as ``GET /v1/tenants``
        describes them."""
        tenants: dict[str, Any] = (self._send(Call("GET", "/v1/tenants")))["tenants"]
        return tenants

    def set_tenant(
        self,
        name: str,
        *,
        energy: float | Unchanged | None = UNCHANGED,
        period: float | Unchanged | None = UNCHANGED,
        weight: float | Unchanged | None = UNCHANGED,
        priority: int | Unchanged | None = UNCHANGED,
    ) -> dict[str, Any]:
        """Change what is given of tenant ``name``: a budget of ``energy`` joules in every
        ``period`` seconds, its ``weight`` against others, the ``priority`` of its requests that
        name none, which is also the most urgent they may have. None takes it away; a budget's two
        go together. Returns its description. Raises InvalidInput or Forbidden.
        """
        call = self._calls.set_tenant(name, energy, period, weight, priority)
        description: dict[str, Any] = self._send(call)
        return description

    def _send(self, call: Call) -> Any:
        check_open(self._http.is_closed)
        try:
            response = self._http.request(**call.arguments())
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        return self._calls.read(response)

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def infer(x: Input, **arguments: Any) -> Any:
    """``Client.infer`` on a client that is kept for this process."""
    return _kept_client(find_url(), os.getpid()).infer(x, **arguments)


@lru_cache(maxsize=8)
def _kept_client(url: str, process: int) -> Client:
    return Client(url)
