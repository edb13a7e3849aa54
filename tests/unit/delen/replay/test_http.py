from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.core.bounds import Bounds
from delen.core.result import Result
from delen.errors import DaemonUnreachable, DelenError, InfeasibleBound, Overloaded
from delen.replay.http import HttpTarget
from delen.replay.inputs import Inputs
from delen.sdk.inputs import EncodedInput
from delen.simulate.trace import Arrival
from delen.wire import answers
from delen.wire.message import write

INPUTS = Inputs(
    "files",
    (EncodedInput("application/x-npy", (b"zero",)), EncodedInput("image/png", (b"one",))),
    np.array([0, 1], np.int64),
)
Asked = tuple[str, dict[str, str], bytes]


class Server:
    """Answers requests in turn with ``answers``: (status, headers, document), or None to hang up;
    the last of them from then on. ``asked`` are their first lines, headers and bodies."""

    def __init__(self, *answers: Any) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self._answers = list(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                headers = dict(line.lower().split(": ", 1) for line in lines if line)
                body = await reader.readexactly(int(headers["content-length"]))
                self.asked.append((first, headers, body))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if answer is None:
                    return
                status, more, document = answer
                text = json.dumps(document).encode()
                head = f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(text)}\r\n\r\n"
                writer.write(head.encode() + text)
                if "close" in more:
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def play(server: Server, talk: Callable[[HttpTarget], Awaitable[None]], base: str = "") -> None:
    async def run() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        target = HttpTarget(f"http://127.0.0.1:{port}{base}", {"m": INPUTS}, "m")
        await talk(target)
        await target.close()
        listener.close()

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.fixture
def good(make_result: Callable[..., Result]) -> Any:
    return (200, "", json.loads(write(answers.Result.of(make_result(index=2)))))


def test_bounds_and_options_of_the_row_are_sent(good: Any) -> None:
    asked = Arrival(0.0, "cam", "m", "left", 2, Bounds(max_latency=0.5, max_energy=0.25))

    async def talk(target: HttpTarget) -> None:
        assert (await target.ask(Arrival(0.0), 0)).index == 2
        await target.ask(asked, 1)

    server = Server(good)
    play(server, talk, base="/edge/")
    (plain, head, body), (whole, other, second) = server.asked
    assert plain == "POST /edge/v1/infer HTTP/1.1"
    assert (head["content-type"], body) == ("application/x-npy", b"zero")
    path, query = whole.split()[1].split("?")
    assert path == "/edge/v1/models/m/infer"
    assert sorted(query.split("&")) == [
        "max_energy_mj=250.0", "max_latency_ms=500.0", "priority=2", "stream=left", "tenant=cam",
    ]  # fmt: skip
    assert (other["content-type"], second) == ("image/png", b"one")
    assert server.connections == 1


def test_refusals_are_the_daemons_own() -> None:
    async def talk(target: HttpTarget) -> None:
        for kind in (InfeasibleBound, Overloaded, DelenError):
            with pytest.raises(kind):
                await target.ask(Arrival(0.0), 0)

    server = Server(
        (422, "", {"error": "no", "code": "infeasible_bound", "nearest": {}}),
        (503, "", {"error": "full", "code": "overloaded", "retry_after_s": 1}),
        (502, "", ["what is this"]),
    )
    play(server, talk)
    assert server.connections == 1


def test_a_connection_that_was_closed_is_made_anew(good: Any) -> None:
    async def talk(target: HttpTarget) -> None:
        for _ in range(3):
            await target.ask(Arrival(0.0), 0)

    closing = Server((200, "Connection: close\r\n", good[2]))
    play(closing, talk)
    assert closing.connections == 3
    hanging_up = Server(good, None, good)
    play(hanging_up, talk)
    assert (hanging_up.connections, len(hanging_up.asked)) == (2, 4), "the one is asked again"


def test_a_request_whose_answer_has_begun_is_not_sent_again(good: Any) -> None:
    class BreaksOff(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for whole in (True, False):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    line for line in head.lower().splitlines() if "content-length" in line
                )
                await reader.readexactly(int(length.split(": ")[1]))
                self.asked.append((head, {}, b""))
                text = json.dumps(good[2]).encode()
                answer = f"HTTP/1.1 200 X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
                writer.write(answer if whole else answer[:20])
            writer.close()

    async def talk(target: HttpTarget) -> None:
        await target.ask(Arrival(0.0), 0)
        with pytest.raises((OSError, EOFError)):
            await target.ask(Arrival(0.0), 0)

    server = BreaksOff()
    play(server, talk)
    assert len(server.asked) == 2


def test_a_new_connection_that_breaks_is_not_hidden() -> None:
    async def talk(target: HttpTarget) -> None:
        with pytest.raises((OSError, EOFError)):
            await target.ask(Arrival(0.0), 0)
        await target.check()

    play(Server(None), talk)


def test_nobody_there_is_unreachable(tmp_path: Path, closed_url: str) -> None:
    for url in (closed_url, f"unix://{tmp_path}/none.sock"):
        target = HttpTarget(url, {"m": INPUTS}, "m")
        with pytest.raises(DaemonUnreachable, match="no daemon answers at"):
            asyncio.run(target.ask(Arrival(0.0), 0))
        with pytest.raises(DaemonUnreachable):
            asyncio.run(target.check())


def test_a_unix_socket_that_turns_away_is_tried_again(tmp_path: Path, good: Any) -> None:
    """A backlog of one, and nobody lets anybody in for a while."""
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    server = Server(good)

    async def run() -> None:
        target = HttpTarget(f"unix://{path}", {"m": INPUTS}, "m")
        asked = [asyncio.ensure_future(target.ask(Arrival(0.0), 0)) for _ in range(4)]
        await asyncio.sleep(0.02)
        listener.setblocking(False)
        serving = await asyncio.start_unix_server(server.serve, sock=listener)
        assert [result.index for result in await asyncio.gather(*asked)] == [2] * 4
        await target.close()
        serving.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_what_is_no_http_is_quoted() -> None:
    class Other(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
            writer.close()

    async def talk(target: HttpTarget) -> None:
        with pytest.raises(DelenError, match="220 mail"):
            await target.ask(Arrival(0.0), 0)

    play(Other(), talk)
