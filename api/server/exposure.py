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


def check_exposure(host: str, has_token: bool, is_insecure: bool) -> str | None:
    """What to warn of where ``host`` is reached by other machines. ConfigError where no token
    guards the daemon then, and nobody has said that this is meant."""
    address = exposed(host)
    if address is None:
        return None
    if not has_token and not is_insecure:
        raise ConfigError(
            f"server.host {host} lets other machines in, and no token is set: set "
            "server.token_file, or server.insecure = true if every machine that reaches it may "
            "use the daemon"
        )
    if has_token:
        return None
    return (
        f"server.insecure: every machine that reaches {address} may send requests, and spend any "
        "tenant's energy"
    )
