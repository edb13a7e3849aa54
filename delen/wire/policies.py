"""Which policies decide: ``GET`` and ``PUT /v1/policies``."""

from __future__ import annotations

from typing import Annotated

from delen.wire.message import Message, Request, about


class Installed(Message, frozen=True):
    """The names that may be configured."""

    dispatch: tuple[str, ...]
    exit: tuple[str, ...]
    controller: tuple[str, ...]


class Policies(Message, frozen=True):
    """The policies in force."""

    dispatch: Annotated[str, about("which tasks run next, and as one batch")]
    exit: Annotated[str, about("whether a job stops at the exit that it reached")]
    controller: Annotated[str, about("what a joule costs")]
    dispatch_failures: Annotated[
        int,
        about("calls in which a dispatch policy failed, where the default decided, or was slow"),
    ]
    installed: Installed


class PolicyChange(Request, frozen=True):
    """What decides from now on, until the daemon starts again."""

    dispatch: str
