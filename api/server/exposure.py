"""Whether other machines can reach an address."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from delen.errors import ConfigError


def exposed(host: str) -> str | None:
    """The address of ``host`` that is not loopback, if there is one. A host that is not known has
    none; listening at it says so."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return None
    addresses = [str(address[0]).partition("%")[0] for *_, address in found]
    return next((each for each in addresses if not ip_address(each).is_loopback), None)


def check_exposure(
    table: str, host: str, has_token: bool, is_insecure: bool, harm: str
) -> str | None:
    """What to warn of where ``host`` of the configuration's ``table`` is reached by other machines:
    of the ``harm`` that they may do. ConfigError where no token is needed then, and nobody has said
    that this is meant."""
    address = exposed(host)
    if address is None:
        return None
    if not has_token and not is_insecure:
        raise ConfigError(
            f"{table}.host {host} lets other machines in, and no token is set: set "
            f"{table}.token_file, or {table}.insecure = true if every machine that reaches it may "
            "send requests"
        )
    return None if has_token else f"{table}.insecure: every machine that reaches {address} {harm}"
