"""How clients are connected: the daemon's address, and pools that no other process uses."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from delen.errors import ConfigError, DaemonUnreachable, DelenError
from delen.sdk.address import URL_VARIABLE, describe_sockets, find_url
from delen.sdk.http import (
    CA_VARIABLE,
    Endpoint,
    Late,
    Transport,
    Unanswered,
    Unconnected,
    can_be_token,
    check_timeout,
)
from delen.sdk.pools import ask_sharing

TOKEN_VARIABLE = "DELEN_TOKEN_FILE"
_ASK_SECONDS = 1.0

Pool = TypeVar("Pool")

_process = object()


def _note_fork() -> None:
    global _process
    _process = object()  # not the process id, which the kernel uses again


os.register_at_fork(after_in_child=_note_fork)


def process() -> object:
    """What stands for this process, and for no other."""
    return _process


class Connections(Generic[Pool]):
    """The pools of connections of one client: one for each process, and for each event loop in it.

    A forked child has its parent's sockets, where it would read its parent's answers, and its
    parent's locks, perhaps held by a thread that the child does not have. It only forgets them: to
    close a pool takes its lock, and changes the selector that parent and child share.

    ``open_pool`` opens a pool for an Endpoint.
    """

    def __init__(
        self,
        open_pool: Callable[[Endpoint], Pool],
        url: str | None,
        timeout: float,
        token: str | None,
        ca_file: str | None = None,
    ) -> None:
        timeout = check_timeout(timeout)
        if token is None and (file := os.environ.get(TOKEN_VARIABLE)):
            token = _read_token(Path(file))
        self.timeout = timeout
        self._token = token
        self._ca_file = ca_file
        self._open_pool = open_pool
        self._pools: dict[tuple[object, AbstractEventLoop | None, str], Pool] = {}
        self._of_parent: list[Pool] = []
        self._is_closed = False
        self._is_found = not url
        self.endpoint = Endpoint.of(url or find_url(), token, ca_file)

    @property
    def url(self) -> str:
        return self.endpoint.url

    @property
    def transport(self) -> Transport:
        """How large inputs go to the daemon, which is asked where that is not known yet."""
        endpoint = self.endpoint
        if endpoint.socket is None:
            return "tcp"
        if endpoint.sharing.works is None:
            ask_sharing(endpoint, min(self.timeout, _ASK_SECONDS))
        return "shm" if endpoint.sharing.works else "unix"

    def pool(self, loop: AbstractEventLoop | None = None) -> tuple[Endpoint, Pool]:
        """Where requests go now, and the pool of this process, for ``loop`` if there is one.
        DelenError after ``close``."""
        if self._is_closed:
            raise DelenError("this client is closed; ask before its `with` block ends")
        endpoint = self.endpoint
        here = _process, loop, endpoint.url
        if (pool := self._pools.get(here)) is not None:
            return endpoint, pool
        for process, other, address in list(self._pools):
            if process is not _process or address != endpoint.url or (other and other.is_closed()):
                old = self._pools.pop((process, other, address), None)
                if old is not None and process is not _process:
                    self._of_parent.append(old)  # an asyncio stream that is freed closes itself
        made = self._open_pool(endpoint)
        return endpoint, self._pools.setdefault(here, made)  # another thread may have been first

    def close(self, loop: AbstractEventLoop | None = None) -> Pool | None:
        """Open no more pools. Returns that of this process and ``loop``, which is to be closed."""
        self._is_closed = True
        return self._pools.pop((_process, loop, self.url), None)

    def look_again(self, tried: str) -> bool:
        """Look for the daemon anew, unless a URL was given or another thread has found it; whether
        it is elsewhere now than at ``tried``."""
        if self._is_found and self.url == tried:
            self.endpoint = Endpoint.of(find_url(), self._token, self._ca_file)
        return self.url != tried

    def unreachable(self, error: Unconnected | Unanswered | Late) -> DaemonUnreachable:
        """What to raise for ``error``: it names every place that was tried."""
        if isinstance(error, Late):
            return DaemonUnreachable(f"the daemon at {self.url} gave no answer in time: {error}")
        tried = f"{self.url} ({error})"
        if "certificate is not valid for" in tried:
            return DaemonUnreachable(
                f"the daemon at {tried} has a certificate without the name {self.endpoint.host}: "
                f"ask it by a name that is in the certificate (url or {URL_VARIABLE}), or have "
                "this name put in"
            )
        if "has expired" in tried or "is not yet valid" in tried:
            return DaemonUnreachable(
                f"the daemon at {tried} has a certificate of another time: have it renewed there "
                "(server.tls_cert), unless the clock of this machine is wrong"
            )
        if "CERTIFICATE_VERIFY_FAILED" in tried:
            return DaemonUnreachable(
                f"the daemon at {tried} is not trusted; say which certificate is, by {CA_VARIABLE} "
                "or ca_file"
            )
        if self._is_found and not os.environ.get(URL_VARIABLE):
            tried += f", nor at a socket ({describe_sockets()})"
        remedy = f"start one with delen-daemon, or say where it is with {URL_VARIABLE}"
        if isinstance(error, Unanswered) and not error.has_begun and self.url.startswith("http:"):
            remedy = f"if it speaks TLS, ask https{self.url.removeprefix('http')}; else {remedy}"
        if "WRONG_VERSION_NUMBER" in tried:
            remedy = f"if it speaks no TLS, ask http{self.url.removeprefix('https')}; else {remedy}"
        return DaemonUnreachable(f"no daemon answers at {tried}; {remedy}")


def _read_token(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{TOKEN_VARIABLE}: {file} cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"{TOKEN_VARIABLE}: {file} is empty; it must have the daemon's token")
    if not can_be_token(token):
        raise ConfigError(
            f"{TOKEN_VARIABLE}: {file} has characters that no header can have; it must have the "
            "daemon's token alone"
        )
    return token
