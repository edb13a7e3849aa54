"""What a client of a hub does for each call: route, node, and another node where one fails.

No sockets: ``send`` yields each request that is to be made, and is sent its answer or thrown what
it failed with. So threads and event loops share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from math import floor, log
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlsplit

from delen.core.bounds import Bounds
from delen.core.result import Result
from delen.errors import (
    DaemonUnreachable,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    ModelNotFound,
    NotFound,
    Overloaded,
)
from delen.sdk.address import HUB_SCHEME, describe_sockets, find_socket
from delen.sdk.call import Asked, Call, Settle, T
from delen.sdk.connection import Connections, Pool, process
from delen.sdk.http import Answer, Late, Request, Transport, Unanswered, Unconnected
from delen.sdk.routes.node_bounds import beside_network, remaining
from delen.sdk.routes.route import HeldRoute, TakenRoute, Want
from delen.sdk.routes.table import RouteTable
from delen.wire.fleet import Nodes, Route
from delen.wire.message import read_answer, write

HUB_SECONDS = 0.5
"""How long a call waits for the hub."""
PATIENCE = 1.0
"""Seconds beyond a call's bound after which its node is given up."""
SILENT = 10.0
"""Seconds after which a node without a bound counts as one that does not answer."""
_STEPS = 1.1
"""A route serves all bounds between a power of this and the next, from the least one's on."""
_UNREACHED = (Unconnected, Unanswered, Late)

Failure: TypeAlias = Unconnected | Unanswered | Late | DelenError
R = TypeVar("R")


class Step(NamedTuple):
    """A request that is to be made over ``connections`` within ``timeout`` seconds."""

    connections: Connections[Any]
    request: Request
    timeout: float


Steps: TypeAlias = Generator[Step, Answer, R]


class Router(Generic[Pool]):
    """``connect`` makes the connections to a URL, ``start`` has steps taken in the background."""

    def __init__(
        self,
        url: str,
        tenant: str,
        connect: Callable[[str], Connections[Pool]],
        start: Callable[[Steps[None]], None],
    ) -> None:
        self.url = url
        self._tenant = tenant
        self._connect = connect
        self._start = start
        self._hub = connect(_hub_url(url))
        self.timeout = self._hub.timeout
        self._nodes: dict[str, Connections[Pool]] = {}
        self._table = process(), RouteTable(tenant)

    @property
    def table(self) -> RouteTable:
        """What this process knows; a forked child begins anew."""
        of, table = self._table
        if of is not process():
            table = RouteTable(self._tenant)
            self._table = process(), table
        return table

    @property
    def route(self) -> TakenRoute | None:
        return self.table.last

    @property
    def transport(self) -> Transport:
        """How large inputs go to where the last answer came from."""
        last = self.table.last
        return "tcp" if last is None else self._at(last.url).transport

    def all_connections(self) -> list[Connections[Pool]]:
        return [self._hub, *self._nodes.values()]

    def send(self, call: Call[T], timeout: float, settle: Settle) -> Steps[T]:
        """The one answer to ``call``."""
        if call.of_requests:
            connections = self._of_requests(call.of_requests)
            try:
                answer = yield Step(connections, call.request, timeout)
            except _UNREACHED as error:
                raise connections.unreachable(error) from error
            return call.answer(answer, settle)
        if call.asked is None:
            raise InvalidInput(
                f"{call.method} {call.path} is of one daemon, and {self.url} stands for several; "
                f"ask one with delen.Client(URL){self._known()}"
            )
        want = self._want(call.asked)
        self.table.admit(want, time.monotonic())
        return (yield from self._ask_nodes(call, call.asked, want, timeout, settle))

    def _ask_nodes(
        self, call: Call[T], asked: Asked, want: Want, timeout: float, settle: Settle
    ) -> Steps[T]:
        """Each node once, until one answers."""
        began, tried = time.monotonic(), set[str]()
        failures: list[DelenError] = []
        while (left := began + timeout - time.monotonic()) > 0:
            held = yield from self._choose(want, tried, left)
            if held is None:
                break
            tried.add(held.url)
            try:
                bounds = self._bounds(asked, held, time.monotonic() - began)
            except InfeasibleBound as error:
                raise (self._failed(want, failures) if failures else error) from error
            try:
                return (yield from self._ask_node(call, want, held, bounds, left, settle))
            except InfeasibleBound as error:
                raise beside_network(error, asked.bounds, bounds) from error
            except (Unconnected, Unanswered, Late) as error:
                failures.append(self._unreached(held, error))
                if isinstance(error, Late) and left < _longest(bounds):
                    raise failures[-1] from error  # the caller's own time is over, not the node's
                self.table.avoid(held.url, time.monotonic())
            except DelenError as error:
                if error.status < 500 and not isinstance(error, ModelNotFound):
                    raise
                failures.append(error)
                seconds = error.retry_after if isinstance(error, Overloaded) else PATIENCE
                self.table.avoid(held.url, time.monotonic(), seconds)
        raise self._failed(want, failures) if failures else self._no_route(want)

    def _ask_node(
        self,
        call: Call[T],
        want: Want,
        held: HeldRoute,
        bounds: Bounds,
        left: float,
        settle: Settle,
    ) -> Steps[T]:
        if bounds.max_latency is not None:
            left = min(left, _longest(bounds))
        request, began = call.under(bounds), time.monotonic()
        reply = yield Step(self._at(held.url), request, left)
        now = time.monotonic()
        answer = call.answer(reply, settle)
        results = answer if isinstance(answer, list) else [answer]
        of_results = [each for each in results if isinstance(each, Result)]
        if of_results:
            receipts = [each.receipt for each in of_results]
            last = max(receipts, key=lambda receipt: receipt.latency.value)
            self.table.learn(held.url, request.size, now - began, last, now)
        self.table.answered(want, held, [each.request_id for each in of_results], now)
        return answer

    def _choose(self, want: Want, tried: set[str], left: float) -> Steps[HeldRoute | None]:
        """Where to send, which no request waits for while there is a route that can be used: its
        renewal begins with half its lease and goes on beside the calls. Without one the hub is
        asked. Where that does not help the other routes are next, then the daemon of this
        machine, then nodes that failed just now."""
        table, now = self.table, time.monotonic()
        if (held := table.held(want, tried, now)) is not None:
            if table.begin_renewal(want, now):
                self._start(self._ask_hub(want, (), HUB_SECONDS))
            return held
        if table.may_ask(want, now):
            yield from self._ask_hub(want, tried, min(HUB_SECONDS, left))
            if (held := table.held(want, tried, time.monotonic())) is not None:
                return held
        others = table.others(want, tried, now)
        if others and not table.is_avoided(others[0].url, now):
            return others[0]
        local = find_socket()
        if local is not None and local not in tried:
            return HeldRoute(local)
        return others[0] if others else None

    def _ask_hub(self, want: Want, tried: set[str] | tuple[()], timeout: float) -> Steps[None]:
        """Keep the hub's route, or what it says or does instead of one."""
        table, asked = self.table, time.monotonic()
        body = write(table.request(want, tried, asked))
        call = Call("POST", "/v1/route", _read_route, {}, (body,), "application/json")
        try:
            reply = yield Step(self._hub, call.request, timeout)
            held = HeldRoute.of(call.answer(reply, _no_settling), want, asked)
            self._check(held.url)
        except _UNREACHED as error:
            problem = DaemonUnreachable(f"the hub at {self.url} does not answer: {error}")
            table.miss_hub(problem, time.monotonic())
        except DelenError as error:
            table.refuse(want, error, time.monotonic())
        else:
            table.keep(want, held)
        if table.problem is None and table.wants_nodes(time.monotonic()):
            self._start(self._ask_which_nodes())

    def _ask_which_nodes(self) -> Steps[None]:
        """Keep which nodes there are, for the time when the hub is gone."""
        call = Call("GET", "/v1/nodes", _read_nodes)
        with suppress(*_UNREACHED, DelenError):
            reply = yield Step(self._hub, call.request, HUB_SECONDS)
            nodes = call.answer(reply, _no_settling).nodes
            for node in nodes:
                self._check(node.url)
            self.table.keep_nodes(nodes)

    def _bounds(self, asked: Asked, held: HeldRoute, spent: float) -> Bounds:
        network = self.table.round_trip(held, time.monotonic())
        return remaining(asked.bounds, asked.on_infeasible, held.url, network, spent)

    def _want(self, asked: Asked) -> Want:
        if asked.model is None:
            raise InvalidInput(
                f"model is not named; {self.url} stands for several daemons: name it in "
                "Client(model=...) or in the call",
                "model",
            )
        bounds = asked.bounds
        deadline = self.timeout
        if bounds.max_latency is not None:
            deadline = _STEPS ** floor(log(bounds.max_latency, _STEPS))
        return Want(asked.model, deadline, bounds.min_accuracy or 0.0)

    def _at(self, url: str) -> Connections[Pool]:
        """The connections to a node. InvalidInput where ``url`` is none."""
        if (known := self._nodes.get(url)) is not None:
            return known
        return self._nodes.setdefault(url, self._connect(url))

    def _check(self, url: str) -> None:
        try:
            self._at(url)
        except InvalidInput as error:
            raise DelenError(f"the hub names a node where none can be: {error}") from error

    def _of_requests(self, request_ids: tuple[str, ...]) -> Connections[Pool]:
        """The connections to the one node that answered them."""
        urls = {request_id: self.table.url_of(request_id) for request_id in request_ids}
        for request_id, url in urls.items():
            if url is None:
                raise NotFound(f"request {request_id!r} is not one that this client had answered")
        first, *others = sorted(set(filter(None, urls.values())))
        if others:
            raise InvalidInput(
                f"the requests were answered by {first} and {', '.join(others)}; post those of one "
                "node at a time",
                "labels",
            )
        return self._at(first)

    def _unreached(self, held: HeldRoute, error: Unconnected | Unanswered | Late) -> DelenError:
        node = "the daemon here" if held.node is None else f"node {held.node}"
        return DaemonUnreachable(f"{node} at {held.url} did not answer: {error}")

    def _failed(self, want: Want, failures: Sequence[DelenError]) -> DelenError:
        """What the last of the nodes said; where it said nothing, why each was passed over."""
        if not isinstance(failures[-1], DaemonUnreachable):
            return failures[-1]
        reasons = list(map(str, failures))
        if (said := self.table.problem or self.table.refusal(want)) is not None:
            reasons.append(f"the hub: {said}")
        return DaemonUnreachable(
            f"no node of the hub at {self.url} answered {want.model}: {'; '.join(reasons)}; "
            f"here: {describe_sockets()}"
        )

    def _no_route(self, want: Want) -> DelenError:
        """Why there was nobody to ask."""
        if (refusal := self.table.refusal(want)) is not None:
            return refusal.with_traceback(None)
        problem = self.table.problem or f"the hub at {self.url} did not answer in time"
        return DaemonUnreachable(
            f"{problem}; it has named no node for {want.model} before, and no daemon is here "
            f"({describe_sockets()})"
        )

    def _known(self) -> str:
        urls = self.table.urls()
        return f"; nodes: {', '.join(urls)}" if urls else ""


def _longest(bounds: Bounds) -> float:
    """Seconds after which a node that was asked under ``bounds`` has failed."""
    return SILENT if bounds.max_latency is None else bounds.max_latency + PATIENCE


def _hub_url(url: str) -> str:
    """Where the hub's HTTP is. InvalidInput unless ``url`` is hub://HOST:PORT."""
    address = url.removeprefix(HUB_SCHEME)
    try:
        parts = urlsplit(f"//{address}")
        is_right = parts.netloc == address and parts.hostname and parts.port
    except ValueError:
        is_right = None
    if not is_right:
        raise InvalidInput(f"url is {url!r}; a hub's must be hub://HOST:PORT", "url")
    return f"http://{address}"


def _read_route(raw: bytes, settle: Settle) -> Route:
    return read_answer(Route, raw)


def _read_nodes(raw: bytes, settle: Settle) -> Nodes:
    return read_answer(Nodes, raw)


def _no_settling(request_id: str, timeout: float) -> None:
    """What a hub answers has no energy that could settle."""
