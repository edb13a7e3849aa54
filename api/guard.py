"""Who may change what the daemon serves."""

from __future__ import annotations

import hmac
import logging
import os
import socket
import stat
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from api.caller import Caller
from api.reply import JSON
from delen.errors import ConfigError, Forbidden, Unauthorized, UnsupportedMediaType

log = logging.getLogger("delen.api")

View = TypeVar("View", bound=Callable[..., object])


def guarded(view: View) -> View:
    """Marks ``view`` as one that changes something."""
    view.is_guarded = True  # type: ignore[attr-defined]
    return view


def read_token(file: str, key: str) -> str:
    """The token in ``file``, which the configuration names by ``key``; ConfigError without one, and
    where every user may write it."""
    try:
        mode = Path(file).stat().st_mode
        token = Path(file).read_text("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key} {file} must be UTF-8 text: {error}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{key} {file} cannot be read: {reason}") from error
    if not token:
        raise ConfigError(f"{key} {file} is empty")
    check_rights(mode, f"{key} {file}")
    return token


def check_rights(mode: int, named: str) -> None:
    """ConfigError where every user may write the secret ``named``; a warning where they may read
    it."""
    if mode & stat.S_IWOTH:
        raise ConfigError(f"{named} can be written by every user: chmod o-rw it")
    if mode & stat.S_IROTH:
        log.warning("%s can be read by every user: chmod o-r it", named)


def check_token(token: str, authorization: str) -> None:
    """Raises Unauthorized where ``authorization`` has no token, Forbidden where it has another one
    than ``token``."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized("this address needs the header Authorization: Bearer TOKEN")
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise Forbidden("the token is wrong")


class Guard:
    """Lets a request change the daemon if it carries the token; without a configured token, if a
    program of this machine sent it, and no web page.

    ``host`` is a name of the daemon beside those of this machine. Where ``users_are_bound`` to
    tenants, a program without the token must be root's or the daemon's own user's.
    """

    def __init__(self, token_file: str, host: str = "", users_are_bound: bool = False) -> None:
        self._token_file = token_file
        self._users_are_bound = users_are_bound
        machine = socket.gethostname().lower()
        self._names = {"", "localhost", machine, f"{machine}.local", host.lower()}
        self._token = self.read()

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def use(self, token: str | None) -> None:
        """Accept ``token``, as ``read`` returned it, from now on."""
        self._token = token

    def read(self) -> str | None:
        """The token in the token file now, None without one. ConfigError if it has none, or every
        user may write it."""
        return read_token(self._token_file, "server.token_file") if self._token_file else None

    def check(self, view: Callable[..., object] | None, caller: Caller, oip: bool) -> None:
        """As ``check_caller`` if ``view`` is guarded, and as JSON if it is not of ``oip``, whose
        clients name no content type."""
        if not getattr(view, "is_guarded", False):
            return
        self.check_caller(caller)
        media_type = caller.content_type.partition(";")[0].strip().lower()
        if self._token is None and not oip and media_type != JSON:
            raise UnsupportedMediaType(
                f"this address needs the header Content-Type: {JSON}, or a token "
                "(server.token_file)"
            )

    def check_caller(self, caller: Caller) -> None:
        """Raises Unauthorized without a token, Forbidden with a wrong one, from elsewhere, or for a
        web page of another site."""
        check_origin(caller)
        if self._token is None:
            self._check_local(caller)
        else:
            check_token(self._token, caller.authorization)

    def is_operator(self, caller: Caller) -> bool:
        """Whether the request carries the token, of which there is one."""
        try:
            check_token(self._token or "", caller.authorization)
        except (Unauthorized, Forbidden):
            return False
        return self.has_token

    def _check_local(self, caller: Caller) -> None:
        if not _is_local(caller.peer):
            raise Forbidden(
                "this address is open to this machine only; set server.token_file to use it "
                "from elsewhere"
            )
        if caller.peer and not self._is_own(caller.host):
            raise Forbidden(
                f"Host is {caller.host!r}, which is not a name of this daemon: use localhost, or "
                "set server.token_file"
            )
        if self._users_are_bound and caller.user() not in (0, os.geteuid()):
            raise Forbidden(
                "tenants.users binds apps to tenants: this address is open to root and to the "
                "daemon's own user only; set server.token_file to use it as another one"
            )

    def _is_own(self, host: str) -> bool:
        """Whether a Host names this daemon, and is not another site's that resolves to it."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._names or name.endswith(".localhost") or _is_local(name)


def check_origin(caller: Caller) -> None:
    """Forbidden where a web page of another site sent the request. Browsers say which one did."""
    if caller.origin and urlsplit(caller.origin).netloc.lower() != caller.host.lower():
        raise Forbidden(f"Origin is {caller.origin!r}: pages of other sites may send nothing here")


def is_oip(path: str) -> bool:
    """Whether ``path`` is an address of the Open Inference Protocol."""
    return path.startswith("/v2/")


def _is_local(peer: str | None) -> bool:
    """True for a loopback address and for a Unix socket, which has none."""
    try:
        return not peer or ip_address(peer).is_loopback
    except ValueError:
        return False
