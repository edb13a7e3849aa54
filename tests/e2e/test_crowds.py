"""More clients at once than the daemon has threads, room or connections for."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.builders.daemon import DEADLINE

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher

Image8 = NDArray[np.uint8]
CROWD = 300
DEEPEST = "max_latency_ms=60000"
EACH = 4
MOST_GROWTH = 40e6


class Told(NamedTuple):
    status: int
    retry_after: int
    document: dict[str, Any]


def request(image: Image8, query: str = "") -> bytes:
    body = image.tobytes()
    head = (
        f"POST /v1/infer?{query} HTTP/1.1\r\nHost: delen\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def tell(reader: asyncio.StreamReader) -> Told:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    document = json.loads(await reader.readexactly(int(fields["content-length"])))
    return Told(int(head[0].split()[1]), int(fields.get("retry-after", 0)), document)


async def connect(daemon: Daemon) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = daemon.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def check(told: Told) -> None:
    """200, or a refusal that says when to come back."""
    if told.status != 200:
        assert (told.status, told.document["code"]) == (503, "overloaded"), told
        assert told.retry_after >= max(1, told.document["retry_after_s"])


def resident(daemon: Daemon) -> int:
    """Bytes of memory that the daemon has."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmRSS")).split()[1])


@pytest.fixture(scope="module")
def small(launcher: Launcher) -> Iterator[Daemon]:
    """A daemon with room for a fifth of a second of work: on no machine it has room for a flood."""
    daemon = launcher.start({"server": {"max_backlog_seconds": 0.2}})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def test_a_flood_is_answered_or_refused_and_takes_no_memory(small: Daemon, images: Image8) -> None:
    async def ask(message: bytes, all_told: list[Told]) -> None:
        reader, writer = await connect(small)
        for _ in range(EACH):
            writer.write(message)
            all_told.append(await tell(reader))
        writer.close()

    async def flood() -> list[Told]:
        all_told: list[Told] = []
        messages = [request(images[k % len(images)], DEEPEST) for k in range(CROWD)]
        await asyncio.gather(*[ask(message, all_told) for message in messages])
        return all_told

    all_told = asyncio.run(flood())
    before = resident(small)
    all_told += asyncio.run(flood())
    assert resident(small) - before < MOST_GROWTH
    for told in all_told:
        check(told)
    assert {told.status for told in all_told} == {200, 503}
    assert len(all_told) == 2 * EACH * CROWD


def test_clients_that_come_back_when_told_to_get_in(small: Daemon, images: Image8) -> None:
    """Those that are refused are told later and later times, for as much as there is before."""
    refused: list[Told] = []

    async def ask(message: bytes) -> None:
        while True:
            reader, writer = await connect(small)
            writer.write(message)
            told = await tell(reader)
            writer.close()
            if told.status == 200:
                return
            check(told)
            refused.append(told)
            await asyncio.sleep(told.retry_after)

    async def crowd(size: int) -> None:
        crowd = [ask(request(images[0], DEEPEST)) for _ in range(size)]
        await asyncio.wait_for(asyncio.gather(*crowd), DEADLINE)

    for size in (CROWD, 2 * CROWD, 4 * CROWD, 8 * CROWD):  # a fast machine refuses none of a few
        if not refused:
            asyncio.run(crowd(size))
    assert len({told.document["retry_after_s"] for told in refused}) > len(refused) / 2


@pytest.fixture(scope="module")
def narrow(launcher: Launcher) -> Iterator[Daemon]:
    """A daemon that has one thread an address and serves four connections."""
    daemon = launcher.start({"server": {"threads": 1, "connections": 4}})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def read(connection: socket.socket) -> Told:
    received = b""
    while not received.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    return Told(int(head.split()[1]), int(fields.get("retry-after", 0)), json.loads(body))


def test_who_sends_slowly_holds_up_nobody(narrow: Daemon, images: Image8) -> None:
    head, _, body = request(images[0]).partition(b"\r\n\r\n")
    with narrow.api.socket() as slow, narrow.api.socket() as half:
        slow.sendall(head + b"\r\nExpect: 100-Continue\r\n\r\n")
        assert slow.recv(4096).startswith(b"HTTP/1.1 100 "), "its body is waited for"
        half.sendall(head)
        for _ in range(3):
            assert narrow.api.get("/healthz").status == 200
            assert narrow.api.get("/v1/models").status == 200
            assert narrow.api.raw(images[1]).status == 200
        slow.sendall(body)
        half.sendall(b"\r\n\r\n" + body)
        assert read(slow).status == 200
        assert read(half).status == 200


@pytest.mark.parametrize("changed", ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\n"])
def test_who_wants_no_more_is_answered_and_closed(
    narrow: Daemon, images: Image8, changed: str
) -> None:
    with narrow.api.socket() as connection:
        connection.sendall(request(images[0]).replace(b"HTTP/1.1\r\n", changed.encode(), 1))
        assert read(connection).status == 200
        assert connection.recv(1) == b""


def test_requests_sent_ahead_are_answered_one_by_one(narrow: Daemon, images: Image8) -> None:
    with narrow.api.socket() as connection:
        connection.sendall(request(images[0]) + request(images[1]) + request(images[0], "top_k=0"))
        file = connection.makefile("rb")
        statuses = []
        for _ in range(3):
            head = b"".join(iter(file.readline, b"\r\n")).decode().lower()
            file.read(int(head.partition("content-length: ")[2].split()[0]))
            statuses.append(int(head.split()[1]))
        assert statuses == [200, 200, 400]


def test_who_only_connects_holds_no_thread(narrow: Daemon, images: Image8) -> None:
    with narrow.api.socket(), narrow.api.socket(), narrow.api.socket() as third:
        third.sendall(request(images[0]))
        assert read(third).status == 200


def test_connections_beyond_those_served_are_told_so(
    narrow: Daemon, images: Image8, until: Callable[..., Any]
) -> None:
    with ExitStack() as opened:
        for _ in range(4):
            opened.enter_context(narrow.api.socket())
        answer = narrow.api.raw(images[0])
        assert "server.connections" in answer.error(503, "overloaded")["error"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Connection"] == "close"
    until(lambda: narrow.api.raw(images[0]).status == 200, "room after they have closed")
