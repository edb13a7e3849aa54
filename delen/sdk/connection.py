"""How clients are connected: the daemon's address, and pools that no other process uses."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # as httpcore, below
import os
from asyncio import AbstractEventLoop
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpcore  # noqa: F401  # loaded at first use, a fork meanwhile would leave it half loaded
import httpx

from delen.errors import ConfigError, DaemonUnreachable, DelenError, InvalidInput
from delen.sdk.address import URL_VARIABLE, describe_sockets, find_url, unix_path

TOKEN_VARIABLE = "DELEN_TOKEN_FILE"
_RETRIES = 1

Pool = TypeVar("Pool")

_process = object()


def _note_fork() -> None:
    global _process
    _process = object()  # not the process id, which the kernel uses again


os.register_at_fork(after_in_child=_note_fork)


class Connections(Generic[Pool]):
    """The pools of connections of one client: one for each process, and for each event loop in it.

    A forked child has its parent's sockets, where it would read its parent's answers, and its
    parent's locks, perhaps held by a thread that the child does not have. It only forgets them: to
    close a pool takes its lock, and changes the selector that parent and child share.

    ``open_pool`` opens a pool from the arguments of httpx's transports and those of its clients.
    """

    def __init__(
        self,
        open_pool: Callable[[dict[str, Any], dict[str, Any]], Pool],
        url: str | None,
        timeout: float,
        token: str | None,
    ) -> None:
        if timeout <= 0:
            raise InvalidInput(f"timeout is {timeout:g}; it must be above 0 seconds", "timeout")
        if token is None and (file := os.environ.get(TOKEN_VARIABLE)):
            token = _read_token(Path(file))
        self._settings = {
            "timeout": timeout,
            "headers": {} if token is None else {"Authorization": f"Bearer {token}"},
            "trust_env": False,
        }
        self._open_pool = open_pool
        self._pools: dict[tuple[object, AbstractEventLoop | None, str], Pool] = {}
        self._is_closed = False
        self._is_found = not url
        self._go_to(url or find_url())

    def pool(self, loop: AbstractEventLoop | None = None) -> Pool:
        """The pool of this process, for ``loop`` if there is one. DelenError after ``close``."""
        if self._is_closed:
            raise DelenError("this client is closed; ask before its `with` block ends")
        url = self.url
        here = _process, loop, url
        if (pool := self._pools.get(here)) is not None:
            return pool
        for process, other, address in list(self._pools):
            if process is not _process or address != url or (other and other.is_closed()):
                self._pools.pop((process, other, address), None)
        path = unix_path(url)
        base = "http://delen" if path else url
        transport = {"uds": path, "retries": _RETRIES, "verify": self._tls}
        made = self._open_pool(transport, {**self._settings, "base_url": base})
        return self._pools.setdefault(here, made)  # another thread may have been first

    def close(self, loop: AbstractEventLoop | None = None) -> Pool | None:
        """Open no more pools. Returns that of this process and ``loop``, which is to be closed."""
        self._is_closed = True
        return self._pools.pop((_process, loop, self.url), None)

    def _go_to(self, url: str) -> None:
        """Connect to ``url`` from now on. All pools share what TLS needs: where a thread makes that
        while another forks, a child that made its own would wait for a lock of OpenSSL for ever."""
        if not url.startswith(("unix://", "http://", "https://")):
            raise InvalidInput(
                f"url is {url!r}; it must be http://HOST:PORT or unix:///PATH", "url"
            )
        self._tls = httpx.create_ssl_context(verify=url.startswith("https://"))
        self.url = url

    def look_again(self, tried: str) -> bool:
        """Look for the daemon anew, unless a URL was given or another thread has found it; whether
        it is elsewhere now than at ``tried``."""
        if self._is_found and self.url == tried:
            self._go_to(find_url())
        return self.url != tried

    def unreachable(self, error: httpx.TransportError) -> DaemonUnreachable:
        """What to raise for ``error``: it names every place that was tried."""
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return DaemonUnreachable(f"the daemon at {self.url} gave no answer in time: {error!r}")
        tried = f"{self.url} ({error})"
        if self._is_found and not os.environ.get(URL_VARIABLE):
            tried += f", nor at a socket ({describe_sockets()})"
        return DaemonUnreachable(
            f"no daemon answers at {tried}; start one with delen-daemon, or say where it is with "
            f"{URL_VARIABLE}"
        )


def _read_token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{TOKEN_VARIABLE}: {file} cannot be read: {error}") from error
