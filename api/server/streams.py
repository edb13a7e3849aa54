"""What a connection's bytes are read from and written to: the standard library's streams. cheroot's
own are Python all through, and take more time than all else that cheroot does for a request."""

from __future__ import annotations

import io
import os
import socket
from contextlib import suppress


class Incoming(io.BufferedReader):
    """Reads from a socket, and knows whether there is more."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        super().__init__(socket.SocketIO(connection, "r"), size)
        self._socket = connection

    def has_data(self) -> bool:
        """Whether something can be read without waiting for it. True also where the connection
        broke; False where the client closed it in order, which is to be seen by the socket."""
        patience = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            return bool(self.peek(1))
        except OSError:
            return True
        finally:
            self._socket.settimeout(patience)

    def at_hand(self) -> int:
        """How many bytes lie here unread, after a look at the socket where none do; 0 where the
        connection broke."""
        with suppress(OSError):
            if self.has_data():
                return len(self.peek())
        return 0


class Outgoing(io.BufferedWriter):
    """Writes to a socket at once, as much as the client takes."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        super().__init__(socket.SocketIO(connection, "w"), size)

    def write(self, piece: bytes) -> int:  # type: ignore[override]  # cheroot has bytes alone
        count = super().write(piece)
        self.flush()
        return count

    def write_some(self, piece: bytes) -> bytes:
        """Write what is taken without waiting, and return what is not: all where the connection
        broke, which the next write finds out. The socket must have a time-out."""
        with suppress(OSError):
            return piece[os.write(self.fileno(), piece) :]
        return piece


def open_stream(connection: socket.socket, mode: str, size: int) -> Incoming | Outgoing:
    """A stream as cheroot asks for one: "rb" or "wb", with a buffer of so many bytes."""
    return Incoming(connection, size) if mode == "rb" else Outgoing(connection, size)
