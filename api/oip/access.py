"""Who may use shared memory, and whose regions are whose."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from api.oip.regions import Place, Regions
from api.server.peer import Socket, local_user, user_of
from delen.errors import Forbidden
from delen.wire.oip import RegionPart

FindPlace: TypeAlias = Callable[[RegionPart], Place | None]


class RegionAccess:
    """Lets each client use ``regions`` of its own user: over the Unix socket, and over TCP from
    this machine where ``is_over_tcp``."""

    def __init__(self, regions: Regions, is_over_tcp: bool) -> None:
        self.regions = regions
        self.is_over_tcp = is_over_tcp

    def is_offered(self, connection: Socket) -> bool:
        return self.is_over_tcp or connection.family == socket.AF_UNIX

    def user(self, connection: Socket) -> int:
        """The user at the other end of ``connection``. Forbidden where it may not use regions."""
        if not self.is_offered(connection):
            raise _off()
        return _known(user_of(connection))

    def tcp_user(self, client: tuple[str, int], own_port: int) -> int:
        """The same of a TCP ``client`` on this machine that is connected to ``own_port``."""
        if not self.is_over_tcp:
            raise _off()
        return _known(local_user(client, own_port))

    def places(self, user: Callable[[], int]) -> FindPlace:
        """What finds the places of tensors for ``user``, who is asked for where there are any."""
        return partial(self._place, user)

    def _place(self, user: Callable[[], int], part: RegionPart) -> Place | None:
        return None if part.region is None else self.regions.place(user(), part)


def _off() -> Forbidden:
    return Forbidden(
        "shared memory is offered over the Unix socket only; server.shared_memory offers it over "
        "TCP to clients of this machine"
    )


def _known(user: int | None) -> int:
    if user is None:
        raise Forbidden("shared memory is for clients of this machine, whose user the kernel knows")
    return user
