"""The gRPC server: grpc's own, with an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import uvloop

from api.server.loop_watch import LoopWatch
from api.server.tls import Tls
from delen.errors import ConfigError

_GRACE = 2.0
_LARGEST_ANSWER = -1
_OPTIONS = 65_536
"""Bytes that a message may have beside its input."""


class GrpcServer:
    """Serves what ``make`` makes for its port, with at most ``calls`` under way, of messages with
    inputs of at most ``max_body`` bytes. ``url`` is where, once it listens."""

    url = ""

    def __init__(self, make: Callable[[int], Any], calls: int, max_body: int) -> None:
        self._make = make
        self._calls = calls
        self._options = [
            ("grpc.max_receive_message_length", max_body + _OPTIONS),
            ("grpc.max_send_message_length", _LARGEST_ANSWER),
            ("grpc.so_reuseport", 0),
        ]
        self._loop = uvloop.new_event_loop()
        self.seconds_behind = LoopWatch(self._loop).seconds_behind
        self._thread = threading.Thread(target=self._run, name="delen-grpc", daemon=True)
        self._server: Any = None

    def listen(self, host: str, port: int, tls: Tls | None = None) -> None:
        """Serve on ``host`` and ``port`` (0: a free one), encrypted if there is ``tls``, or raise
        ConfigError."""
        self._thread.start()
        bracketed = f"[{host}]" if ":" in host else host or "0.0.0.0"
        started: Future[int] = asyncio.run_coroutine_threadsafe(
            self._listen(f"{bracketed}:{port}", tls), self._loop
        )
        try:
            self.url = f"grpc{'s' if tls else ''}://{bracketed}:{started.result()}"
        except RuntimeError as error:
            self.stop()
            raise ConfigError(
                f"cannot listen for gRPC on {host} port {port}; is another daemon there?"
            ) from error

    def stop(self) -> None:
        """Stop listening and wait for the calls under way."""
        if not self._thread.is_alive():
            return
        if self._server is not None:
            asyncio.run_coroutine_threadsafe(self._server.stop(_GRACE), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self, address: str, tls: Tls | None) -> int:
        server = grpc.aio.server(options=self._options, maximum_concurrent_rpcs=self._calls)
        port: int = (
            server.add_insecure_port(address)
            if tls is None
            else server.add_secure_port(address, _credentials(tls))
        )
        server.add_generic_rpc_handlers((self._make(port),))
        await server.start()
        self._server = server
        return port

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


def _credentials(tls: Tls) -> Any:
    """What ``tls`` says at each new connection."""

    def read() -> Any:
        pair = tls.identity.key, tls.identity.chain
        return grpc.ssl_server_certificate_configuration([pair])

    return grpc.dynamic_ssl_server_credentials(read(), read)
