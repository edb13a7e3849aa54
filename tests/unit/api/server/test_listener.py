from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

import pytest
import uvloop

from api.server.listener import Listener


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> socket.socket:
    listening = socket.socket(request.param)
    is_unix = request.param == socket.AF_UNIX
    listening.bind(str(tmp_path / "d.sock") if is_unix else ("127.0.0.1", 0))
    listening.listen()
    return listening


def test_a_listener_that_closes_keeps_the_connections_that_are_made(
    listening: socket.socket,
) -> None:
    """Also those that are made in the same turn of the loop."""
    loop = uvloop.new_event_loop()

    class Echo(asyncio.Protocol):
        def __init__(self, first: bytes, memory: memoryview) -> None:
            self.first = first

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            listener.close()
            self.data_received(self.first)

        def data_received(self, data: bytes) -> None:
            if data:
                self.transport.write(data)

    def ask() -> bytes:
        with socket.socket(listening.family) as client:
            client.settimeout(20.0)
            client.connect(address)
            client.sendall(b"asked ")
            received = client.recv(100)
            client.sendall(b"again")
            return received + client.recv(100)

    address = listening.getsockname()
    try:
        listener = Listener(loop, listening, Echo)
        assert loop.run_until_complete(loop.run_in_executor(None, ask)) == b"asked again"
    finally:
        loop.close()
