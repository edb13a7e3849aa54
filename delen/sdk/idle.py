"""What the pools of threads and of event loops share: idle connections, and the memory of all."""

from __future__ import annotations

import socket
import threading
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

from delen.sdk.http import Endpoint, Pieces, Request
from delen.sdk.memory import ADDRESS, LEAST, SharedMemory

_JOINED = 65_536
"""Bytes of a body up to which it is sent together with its head."""
_MOST_MEMORY = 128 << 20
_ASK = Request("GET", ADDRESS)


class Connection(Protocol):
    """Has one request at a time. Its ``memory`` is what the daemon reads, if anything."""

    memory: SharedMemory | None

    def is_open(self) -> bool: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)


class IdleConnections(Generic[C]):
    """The connections to ``endpoint`` that wait for their next request.

    A large body goes through the memory of its connection. So nothing is written over before its
    answer came, and a connection that is given up takes its memory with it. All together have at
    most ``_MOST_MEMORY`` bytes; bodies beyond that are sent.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._sharing = endpoint.sharing
        self._plain: list[C] = []
        self._with_memory: list[C] = []
        self._memories: WeakSet[SharedMemory] = WeakSet()
        self._lock = threading.Lock()
        self._is_closed = False

    def _take(self, size: int) -> C | None:
        """One that the daemon has not closed, for a body of ``size`` bytes; None for a new one."""
        while (found := self._find(size)) is not None:
            if found.is_open():
                return found
            found.close()
        return None

    def _find(self, size: int) -> C | None:
        with self._lock:
            if self._is_for_memory(size):
                for connection in reversed(self._with_memory):
                    if connection.memory and connection.memory.size >= size:
                        self._with_memory.remove(connection)
                        return connection
                if self._has_room(size):
                    return None
            kept = self._plain or self._with_memory
            return kept.pop() if kept else None

    def _give_back(self, connection: C, keeps: bool) -> None:
        """After its request; ``keeps`` says whether it may have another."""
        if not keeps or self._is_closed:
            connection.close()
            return
        with self._lock:
            (self._with_memory if connection.memory else self._plain).append(connection)

    def _close_idle(self) -> list[C]:
        """Keep none from now on. Returns those that are to be closed."""
        with self._lock:
            self._is_closed = True
            idle = self._plain + self._with_memory
            self._plain, self._with_memory = [], []
            return idle

    def _bring_memory(self, connection: socket.socket, size: int) -> SharedMemory | None:
        """Memory that is sent over a new ``connection``, with a question, if a body of ``size``
        bytes should go through some. ConnectionError where it is broken."""
        with self._lock:
            if not (self._is_for_memory(size) and self._has_room(size)):
                return None
            try:
                memory = SharedMemory(size)
                memory.pass_to(connection, self._endpoint.head(_ASK))
            except ConnectionError:
                connection.close()
                raise
            except OSError:
                self._sharing.found(False)
                return None
            self._memories.add(memory)
            return memory

    def _wire(self, connection: C, request: Request) -> Pieces:
        """What is sent of ``request``, after its body was written to memory if there is some."""
        memory, body, size = connection.memory, request.body, request.size
        if memory is not None and LEAST <= size <= memory.size:
            memory.write(body)
            return (self._endpoint.head(request, in_memory=True),)
        head = self._endpoint.head(request)
        if size <= _JOINED:
            return (b"".join((head, *body)),)
        return (b"".join((head, *body[:-1])), body[-1])  # what is large is not copied

    def _is_for_memory(self, size: int) -> bool:
        return size >= LEAST and self._endpoint.socket is not None and self._sharing.is_worth_trying

    def _has_room(self, size: int) -> bool:
        return size + sum(memory.size for memory in self._memories) <= _MOST_MEMORY
