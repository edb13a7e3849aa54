"""The calls that both clients make, each declared once: its signature, how it is built, and how its
answer is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from delen.core.bounds import (
    DEFAULT_ENCODING,
    Bounds,
    Encoding,
    OnInfeasible,
    Options,
    check_cap,
    check_finite,
    check_name,
    check_text,
)
from delen.core.energy_status import (
    UNCHANGED,
    Battery,
    Budget,
    PowerChanges,
    Settled,
    TenantChanges,
    Unchanged,
)
from delen.core.guarantee import Feedback
from delen.core.plan import Preview
from delen.core.result import Result
from delen.errors import InvalidInput
from delen.sdk.call import Asked, Call, Settle
from delen.sdk.http import check_timeout
from delen.sdk.inputs import Input, encode
from delen.sdk.labels import plain_labels
from delen.sdk.resume import bounds_of, resume_headers, resume_query, with_link
from delen.wire import answers
from delen.wire.message import Message, read_answer, write
from delen.wire.requests import (
    HistoryFields,
    Labels,
    PlanFields,
    PowerChange,
    SuspendableFields,
    TenantChange,
)

T = TypeVar("T")
_JSON = "application/json"
_RAW = "application/octet-stream"
_OF_A_BATCH = re.compile(rb'\s*\{\s*"results"\s*:')


class Calls:
    """Every address of the daemon once: what is sent to it, and how its answer is read. Both
    clients have these methods, and send what they build."""

    def __init__(self, model: str | None, tenant: str) -> None:
        self._model = None if model is None else _name(model)
        self._tenant = check_name(tenant, "tenant")

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
        suspend_at: int | None = None,
        encoding: Encoding = DEFAULT_ENCODING,
        timeout: float | None = None,
    ) -> Call[Any]:
        """Answer ``x`` under its bounds: seconds, a fraction, joules.

        ``x`` is a numpy array, a PIL image, a path, or encoded bytes. Returns a Result, or a list
        of them when ``x`` is a batch; ``result.receipt.energy.settled()`` waits for its final
        energy, through this client. Where no exit up to ``suspend_at`` is confident, the result is
        that exit's, and ``result.suspended`` has its features in ``encoding`` (fp16, fp32 or int8)
        for the ``resume`` of another node's client. Raises InvalidInput, ModelNotFound,
        InfeasibleBound, BudgetExhausted, Overloaded or DaemonUnreachable.
        """
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        options = Options(
            tenant=self._tenant,
            stream=stream,
            priority=priority,
            top_k=top_k,
            on_infeasible=on_infeasible,
            probabilities=True,
            suspend_at=suspend_at,
            encoding=encoding,
        )
        if timeout is not None:
            timeout = check_timeout(timeout)
        named, encoded = self._named(model), encode(x)
        return Call(
            "POST",
            infer_target(named, bounds, options),
            _read_results,
            {},
            encoded.pieces,
            encoded.media_type,
            timeout,
            Asked(named, bounds, lambda other: infer_target(named, other, options), on_infeasible),
        )

    def resume(
        self,
        begun: Result,
        *,
        since: float | None = None,
        priority: int | None = None,
        top_k: int = 1,
        on_infeasible: OnInfeasible = "reject",
        timeout: float | None = None,
    ) -> Call[Any]:
        """Go on with the job of ``begun``, which another node's client ``infer`` returned
        ``suspended``, for its tenant and under its bounds. Returns a Result whose receipt has the
        ``parts`` of both nodes and their sums.

        ``since`` is ``time.monotonic()`` when the first node was asked: what has passed since then
        beyond that node's part is the link's. Raises what ``infer`` does, and BundlesDiffer where
        this node serves another bundle; ``begun`` is an answer all the same.
        """
        if not isinstance(begun, Result):
            raise InvalidInput(
                f"begun must be a Result of infer, not {type(begun).__name__}", "begun"
            )
        if begun.suspended is None:
            raise InvalidInput("this result is an answer; there is nothing to resume", "begun")
        if timeout is not None:
            timeout = check_timeout(timeout)
        options = Options(
            tenant=begun.tenant,
            stream=begun.stream,
            priority=priority,
            top_k=top_k,
            on_infeasible=on_infeasible,
            probabilities=True,
        )
        suspended, path = begun.suspended, _path(begun.model, "resume")
        return Call(
            "POST",
            path,
            _read_results,
            resume_query(suspended, bounds_of(begun), options),
            (suspended.features,),
            _RAW,
            timeout,
            headers=resume_headers(suspended, with_link(begun.receipt.parts, since)),
        )

    def plan(
        self,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        model: str | None = None,
    ) -> Call[Preview]:
        """What these bounds would buy now, without an input."""
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        named, options = self._named(model), Options(tenant=self._tenant)

        def target(bounds: Bounds) -> str:
            return _path(named, "plan", PlanFields.asking(bounds, options).query())

        asked = Asked(named, bounds, target)
        return Call("POST", target(bounds), _as(answers.Plan, Preview), asked=asked)

    def feedback(
        self, labels: Mapping[str, int | str], *, model: str | None = None
    ) -> Call[Feedback]:
        """Post the right classes, as indices or names, of past answers by their request id.

        They show the daemon whether what it promised still holds. They should be of all answers,
        or of some chosen without looking at the answers.
        """
        posted, path = Labels(plain_labels(labels)), _path(self._named(model), "feedback")
        call = _send("POST", path, posted, _as(answers.Feedback, Feedback))
        return replace(call, of_requests=tuple(labels))

    def models(self) -> Call[list[dict[str, Any]]]:
        """The models that the daemon knows, as ``GET /v1/models`` describes them."""
        asked = Asked(self._model, Bounds(), lambda bounds: "/v1/models")
        return Call("GET", "/v1/models", _part("models", list[dict[str, Any]]), asked=asked)

    def load(self, model: str) -> Call[dict[str, Any]]:
        """Load a model, and return its description once it is ready."""
        return Call("POST", _path(_name(model), "load"), _read_object, media_type=_JSON)

    def unload(self, model: str) -> Call[dict[str, Any]]:
        """Unload a model that no request is using."""
        return Call("POST", _path(_name(model), "unload"), _read_object, media_type=_JSON)

    def power(self) -> Call[dict[str, Any]]:
        """Watts now, how they are known and what limits them, as ``GET /v1/power`` describes."""
        return Call("GET", "/v1/power", _read_object)

    def power_history(
        self, seconds: float = 600.0, step: float = 0.0
    ) -> Call[list[dict[str, Any]]]:
        """The accounting windows of the last ``seconds`` (1 to 86400), oldest first, as
        ``GET /v1/power/history`` describes them. Those of more than an hour ago are merged to
        minutes, and all to at least ``step`` seconds.
        """
        asked = {"seconds": check_finite(seconds, "seconds"), "step": check_finite(step, "step")}
        query = HistoryFields.read(asked).query()
        return Call("GET", "/v1/power/history", _part("windows", list[dict[str, Any]]), query)

    def set_power(
        self,
        *,
        watt_cap: float | Unchanged | None = UNCHANGED,
        battery: Battery | Unchanged | None = UNCHANGED,
        mode: str | Unchanged = UNCHANGED,
    ) -> Call[dict[str, Any]]:
        """Change what is given: a cap on the watts, a battery to make last (both may be None, for
        none), or the power mode. Returns what ``power`` would. Raises InvalidInput, Forbidden, or
        PowerError where the mode cannot be had.
        """
        change = PowerChange.of(PowerChanges(watt_cap, battery, mode))
        return _send("PUT", "/v1/power", change, _read_object)

    def request(self, request_id: str) -> Call[Settled]:
        """A past request as it is known by now, its receipt once the energy is final.

        NotFound when the daemon does not know it, or has forgotten it.
        """
        check_text(request_id, "request_id", "the id of a request")
        path = f"/v1/requests/{quote(request_id, safe='')}"
        read = _as(answers.SettledRequest, Settled)
        return Call("GET", path, read, of_requests=(request_id,))

    def figures(self) -> Call[dict[str, Any]]:
        """The device at a glance, as ``GET /v1/figures`` describes it."""
        return Call("GET", "/v1/figures", _read_object)

    def tenants(self) -> Call[dict[str, Any]]:
        """The tenants that were seen or of which something is set, as ``GET /v1/tenants``
        describes them."""
        return Call("GET", "/v1/tenants", _part("tenants", dict[str, Any]))

    def set_tenant(
        self,
        name: str,
        *,
        energy: float | Unchanged | None = UNCHANGED,
        period: float | Unchanged | None = UNCHANGED,
        weight: float | Unchanged | None = UNCHANGED,
        priority: int | Unchanged | None = UNCHANGED,
    ) -> Call[dict[str, Any]]:
        """Change what is given of tenant ``name``: a budget of ``energy`` joules in every
        ``period`` seconds, its ``weight`` against others, the ``priority`` of its requests that
        name none, which is also the most urgent they may have. None takes it away; a budget's two
        go together. Returns its description. Raises InvalidInput or Forbidden.
        """
        path = f"/v1/tenants/{quote(check_name(name, 'name'), safe='')}"
        changes = TenantChanges(_budget(energy, period), weight, priority)
        if changes == TenantChanges():
            raise InvalidInput("name what to change: energy and period, weight or priority")
        return _send("PUT", path, TenantChange.of(changes), _read_object)

    def _named(self, model: str | None) -> str | None:
        """The name of ``model``, by default of the client's."""
        return self._model if model is None else _name(model)


@lru_cache(4096)
def infer_target(model: str | None, bounds: Bounds, options: Options) -> str:
    """The address of an input for ``model``, with what is asked of it."""
    return _path(model, "infer", SuspendableFields.asking(bounds, options).query())


def _name(model: object) -> str:
    return check_text(model, "model", "the name of a model")


def _path(model: str | None, verb: str, query: Mapping[str, str] | None = None) -> str:
    path = f"/v1/{verb}" if model is None else f"/v1/models/{quote(model, safe='')}/{verb}"
    return f"{path}?{urlencode(query)}" if query else path


def _send(method: str, path: str, message: Message, read: Callable[[bytes, Settle], T]) -> Call[T]:
    return Call(method, path, read, {}, (write(message),), _JSON)


def _as(message: type[Message], kind: Callable[..., T]) -> Callable[[bytes, Settle], T]:
    return lambda raw, _: read_answer(message, raw).to(kind)


def _read_object(raw: bytes, settle: Settle) -> dict[str, Any]:
    return read_answer(dict[str, Any], raw)


@cache
def _part(name: str, kind: type[T]) -> Callable[[bytes, Settle], T]:
    """A reader of what the answer's object has as ``name``."""
    message = msgspec.defstruct("Part", [(name, kind)])
    return lambda raw, _: getattr(read_answer(message, raw), name)


def _read_results(raw: bytes, settle: Settle) -> Result | list[Result]:
    """The answers, with ``settle`` behind their ``energy.settled``."""
    if _OF_A_BATCH.match(raw):
        return [_followed(one, settle) for one in read_answer(answers.Results, raw).results]
    return _followed(read_answer(answers.Result, raw), settle)


def _followed(message: answers.Result, settle: Settle) -> Result:
    result = message.to(Result)
    request_id = result.request_id
    result.receipt.energy.follow(lambda timeout: settle(request_id, timeout))
    return result


def _budget(
    energy: float | Unchanged | None, period: float | Unchanged | None
) -> Budget | Unchanged | None:
    if energy is None and period is None:
        return None
    if energy is UNCHANGED and period is UNCHANGED:
        return UNCHANGED
    if energy is None or period is None or energy is UNCHANGED or period is UNCHANGED:
        missing = "energy" if energy is None or energy is UNCHANGED else "period"
        raise InvalidInput(f"a budget needs energy and period; {missing} is missing", missing)
    return Budget(check_cap(energy, "energy"), period)
