"""One call of a client, not yet sent: what goes out, and how its answer is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import update_wrapper, wraps
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar
from urllib.parse import urlencode

import msgspec

from delen.core.bounds import Bounds, OnInfeasible
from delen.errors import DelenError
from delen.sdk.http import Answer, Pieces, Request
from delen.wire.errors import read_error

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])
Settle = Callable[[str, float], Any]
"""Waits for the final energy of a request for so many seconds; an AsyncClient's is awaited."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call that any node can answer asks of it. ``target`` is its address under other
    bounds than these."""

    model: str | None
    bounds: Bounds
    target: Callable[[Bounds], str]
    on_infeasible: OnInfeasible = "reject"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request, not yet sent. ``read`` makes its answer of the body of a good one.

    A client of several daemons sends it to any of them where ``asked`` is set, to the one that
    answered ``of_requests`` where those are named, and to none otherwise.
    """

    method: str
    path: str
    read: Callable[[bytes, Settle], T]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Pieces = ()
    media_type: str | None = None
    timeout: float | None = None
    asked: Asked | None = None
    of_requests: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def request(self) -> Request:
        """What is sent."""
        target = f"{self.path}?{urlencode(self.query)}" if self.query else self.path
        return Request(self.method, target, self.body, self.media_type, self.headers)

    def under(self, bounds: Bounds) -> Request:
        """What is sent where what is ``asked`` has other ``bounds``."""
        assert self.asked is not None
        return Request(self.method, self.asked.target(bounds), self.body, self.media_type)

    def answer(self, answer: Answer, settle: Settle) -> T:
        """What a good ``answer`` says; the daemon's own exception for any other."""
        if answer.status != 200:
            raise read_error(answer.body, answer.status)
        try:
            return self.read(answer.body, settle)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DelenError(f"the daemon's answer is not as expected: {error}") from error


def of_class(owner: str, build: Callable[Q, Call[T]]) -> Callable[Q, Call[T]]:
    """``build`` as a method of the class ``owner``, by which Python's TypeErrors then call it."""
    assert isinstance(build, FunctionType)
    copy = FunctionType(build.__code__, build.__globals__, build.__name__, build.__defaults__)
    update_wrapper(copy, build)
    copy.__kwdefaults__ = build.__kwdefaults__
    copy.__qualname__ = f"{owner}.{build.__name__}"
    return copy


def like(build: Callable[..., Call[Any]], method: M) -> M:
    """``method`` with the name, signature and docstring of ``build``, whose call it sends."""
    signature = inspect.signature(build)
    answer = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    wraps(build)(method)
    method.__signature__ = signature.replace(return_annotation=answer)  # type: ignore[attr-defined]
    return method
