"""Who may change what the daemon serves."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from delen.errors import ConfigError, Forbidden, Unauthorized

View = TypeVar("View", bound=Callable[..., object])


def guarded(view: View) -> View:
    """Marks ``view`` as one that changes something."""
    view.is_guarded = True  # type: ignore[attr-defined]
    return view


def read_token(file: str, key: str) -> str:
    """The token in ``file``, which the configuration names by ``key``; ConfigError without one."""
    try:
        token = Path(file).read_text("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key} {file} must be UTF-8 text: {error}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{key} {file} cannot be read: {reason}") from error
    if not token:
        raise ConfigError(f"{key} {file} is empty")
    return token


def check_token(token: str, authorization: str) -> None:
    """Raises Unauthorized where ``authorization`` has no token, Forbidden where it has another one
    than ``token``."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized("this address needs the header Authorization: Bearer TOKEN")
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise Forbidden("the token is wrong")


class Guard:
    """Lets a request change the daemon if it carries the token; without a configured token, if
    it comes from this machine."""

    def __init__(self, token_file: str) -> None:
        self._token_file = token_file
        self._token = self.read()

    def use(self, token: str | None) -> None:
        """Accept ``token``, as ``read`` returned it, from now on."""
        self._token = token

    def read(self) -> str | None:
        """The token in the token file now, None without one. ConfigError if it has none."""
        return read_token(self._token_file, "server.token_file") if self._token_file else None

    def check(
        self, view: Callable[..., object] | None, peer: str | None, authorization: str
    ) -> None:
        """As ``check_caller`` if ``view`` is guarded."""
        if getattr(view, "is_guarded", False):
            self.check_caller(peer, authorization)

    def check_caller(self, peer: str | None, authorization: str) -> None:
        """Raises Unauthorized without a token, Forbidden with a wrong one or from elsewhere.
        ``peer`` is the address that the request comes from, None of a Unix socket."""
        if self._token is None:
            if not _is_local(peer):
                raise Forbidden(
                    "this address is open to this machine only; set server.token_file to use it "
                    "from elsewhere"
                )
            return
        check_token(self._token, authorization)


def _is_local(peer: str | None) -> bool:
    """True for a loopback address and for a Unix socket, which has none."""
    try:
        return not peer or ip_address(peer).is_loopback
    except ValueError:
        return False
