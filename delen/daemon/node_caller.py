"""How a node is asked how it stands, and told what to do: HTTP to its daemon."""

from __future__ import annotations

import os
from dataclasses import dataclass

from delen.daemon.standing import read_standing
from delen.errors import DelenError, InvalidInput
from delen.sdk.http import Answer, Endpoint, Late, Request, Unanswered, Unconnected
from delen.sdk.pools import Pool
from delen.wire.errors import read_error
from policies.fleet.api import Standing

LARGEST = 1_000_000
"""Bytes of an answer; a standing of 100 operating points has 20,000."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a call to a node: its ``standing``, or the ``problem``, which ``lasts`` if the
    node answered and its answer is of no use. ``process`` is the caller's."""

    process: int
    standing: Standing | None = None
    problem: str | None = None
    lasts: bool = False


class NodeCaller:
    """Calls the daemon at ``url``, which has ``timeout`` seconds for a whole answer."""

    def __init__(self, node: str, url: str, token: str | None, timeout: float) -> None:
        self._node = node
        self._timeout = timeout
        self._pool = Pool(Endpoint.of(url, token), LARGEST)

    def ask(self) -> Heard:
        """The node's standing, its time left to whoever asked."""
        try:
            answer = self._exchange(Request("GET", "/v1/standing"))
        except (Unconnected, Unanswered, Late) as error:
            return Heard(os.getpid(), problem=str(error))
        except DelenError as error:
            return self._useless(str(error))
        try:
            return Heard(os.getpid(), read_standing(self._node, answer.body))
        except InvalidInput as error:
            return self._useless(f"its standing is wrong: {error}")

    def tell(self, directives: bytes) -> Heard:
        """Have the node obey ``directives``, as JSON."""
        try:
            self._exchange(Request("PUT", "/v1/directives", (directives,), "application/json"))
        except (Unconnected, Unanswered, Late, DelenError) as error:
            return Heard(os.getpid(), problem=str(error))
        return Heard(os.getpid())

    def close(self) -> None:
        """Give up the connections."""
        self._pool.close()

    def _useless(self, problem: str) -> Heard:
        return Heard(os.getpid(), problem=problem, lasts=True)

    def _exchange(self, request: Request) -> Answer:
        answer = self._pool.exchange(request, self._timeout)
        if answer.status != 200:
            error = read_error(answer.body, answer.status)
            problem = f"{request.method} {request.target}: {error}"
            raise Unanswered(problem) if answer.status == 503 else DelenError(problem)
        return answer
