"""Errors."""

from __future__ import annotations

from typing import Annotated

import msgspec

from delen.errors import (
    ERRORS_BY_CODE,
    BatchTooLarge,
    BudgetExhausted,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    MissingExtra,
    Overloaded,
    PowerError,
)
from delen.errors import Nearest as NearestBounds
from delen.wire.answers import Nearest
from delen.wire.message import Message, about, read_answer

_ATTRIBUTES = ("field", "largest", "retry_after", "remedy")


class Error(Message, frozen=True, omit_defaults=True):
    """Why a request was refused or failed."""

    error: Annotated[str, about("a sentence")]
    code: Annotated[str, about(enum=sorted(ERRORS_BY_CODE))]
    field: Annotated[str | None, about("the part of the request that is wrong")] = None
    nearest: Nearest | None = None
    largest: Annotated[int | None, about("the largest batch that can be admitted")] = None
    retry_after: float | None = msgspec.field(name="retry_after_s", default=None)
    remedy: str | None = None

    @classmethod
    def of(cls, error: DelenError) -> Error:  # type: ignore[override]  # of nothing else
        nearest = getattr(error, "nearest", None)
        return cls(
            error=str(error),
            code=error.code,
            nearest=None if nearest is None else Nearest.of(nearest),
            **{name: getattr(error, name, None) for name in _ATTRIBUTES},
        )

    def exception(self) -> DelenError:
        """The exception that the daemon raised."""
        kind = ERRORS_BY_CODE.get(self.code, DelenError)
        if issubclass(kind, InfeasibleBound):
            return kind(self.error, (self.nearest or Nearest()).to(NearestBounds))
        if issubclass(kind, BatchTooLarge):
            return kind(self.error, self.largest or 0)
        if issubclass(kind, InvalidInput):
            return kind(self.error, self.field)
        if issubclass(kind, (BudgetExhausted, Overloaded)):
            return kind(self.error, self.retry_after or 0.0)
        if issubclass(kind, PowerError):
            return kind(self.error, self.remedy)
        return DelenError(self.error) if issubclass(kind, MissingExtra) else kind(self.error)


def read_error(raw: bytes, status: int) -> DelenError:
    """The exception that the daemon raised, or a DelenError with the ``status`` of what it sent."""
    try:
        return read_answer(Error, raw).exception()
    except msgspec.DecodeError:
        return DelenError(f"the daemon answered with status {status} and no error sentence")
