"""Who may change what the daemon serves."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path

from flask import Request

from delen.errors import ConfigError, Forbidden, Unauthorized


class Guard:
    """Lets a request change the daemon if it carries the token; without a configured token, if
    it comes from this machine."""

    def __init__(self, token_file: str) -> None:
        self._token_file = token_file
        self._token = self._read()

    def reload(self) -> None:
        """Read the token file again."""
        self._token = self._read()

    def _read(self) -> str | None:
        if not self._token_file:
            return None
        try:
            token = Path(self._token_file).read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"server.token_file {self._token_file} cannot be read: {error.strerror or error}"
            ) from error
        if not token:
            raise ConfigError(f"server.token_file {self._token_file} is empty")
        return token

    def check(self, request: Request) -> None:
        """Raises Unauthorized without a token, Forbidden with a wrong one or from elsewhere."""
        if self._token is None:
            if not _is_local(request.remote_addr):
                raise Forbidden(
                    "this address is open to this machine only; set server.token_file to use it "
                    "from elsewhere"
                )
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Unauthorized("this address needs the header Authorization: Bearer TOKEN")
        if not hmac.compare_digest(given.strip().encode(), self._token.encode()):
            raise Forbidden("the token is wrong")


def _is_local(peer: str | None) -> bool:
    """True for a loopback address and for a Unix socket, which has none."""
    try:
        return not peer or ip_address(peer).is_loopback
    except ValueError:
        return False
