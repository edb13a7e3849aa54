"""Memory that a client shares with the daemon: the SDK's way for large inputs, and what a client
might try with it."""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen
from delen.sdk.memory import LEAST, SharedMemory
from tests.builders.daemon import Api, Daemon, Launcher, clean_environment, wait_until

FUTURE_WRITE = 0x0010
SEALS = fcntl.F_SEAL_SHRINK | FUTURE_WRITE
SAMPLE = 32 * 32 * 3
SIZE = 1 << 20
HEADER = "Delen-Shared-Memory"
ASK = b"GET /v1/memory HTTP/1.1\r\nHost: delen\r\n\r\n"
Images = NDArray[np.uint8]


@pytest.fixture
def path(daemon: Daemon) -> str:
    assert daemon.unix_url is not None
    return daemon.unix_url.removeprefix("unix://")


@pytest.fixture
def batch(images: Images) -> Images:
    """Enough images to go through memory."""
    return np.concatenate([images] * (1 + LEAST // images.nbytes))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all bodies that the SDK writes into memory."""
    sizes: list[int] = []
    write = SharedMemory.write

    def note(self: SharedMemory, pieces: Any) -> None:
        sizes.append(sum(map(len, pieces)))
        write(self, pieces)

    monkeypatch.setattr(SharedMemory, "write", note)
    return sizes


def labels(results: list[delen.Result]) -> list[str | None]:
    return [result.label for result in results]


def test_large_inputs_go_through_memory_and_small_ones_do_not(
    daemon: Daemon, batch: Images, written: list[int]
) -> None:
    with delen.Client(daemon.url) as tcp, delen.Client(daemon.unix_url) as unix:
        assert (tcp.transport, unix.transport) == ("tcp", "shm")
        wanted = labels(tcp.infer(batch))
        assert not written
        assert labels(unix.infer(batch)) == wanted
        assert len(written) == 1
        assert written[0] > batch.nbytes
        assert unix.infer(batch[0]).label == wanted[0]
        assert labels(unix.infer(batch[::-1])) == wanted[::-1]
        assert len(written) == 2


def test_a_refusal_and_what_follows_it_come_as_by_any_way(daemon: Daemon, batch: Images) -> None:
    with delen.Client(daemon.unix_url) as client:
        wanted = labels(client.infer(batch))
        for wrong in (batch.astype(np.float32), batch[:, 1:], batch.tobytes()):
            with pytest.raises(delen.InvalidInput) as refused:
                client.infer(wrong)
            assert refused.value.field == "input"
        assert labels(client.infer(batch)) == wanted


def test_threads_have_memory_of_their_own(
    daemon: Daemon, batch: Images, written: list[int]
) -> None:
    with delen.Client(daemon.unix_url) as client:
        wanted = labels(client.infer(batch))
        orders = [np.roll(np.arange(len(batch)), turn) for turn in range(12)]
        with ThreadPoolExecutor(4) as threads:
            answers = threads.map(lambda order: client.infer(batch[order]), orders)
        for order, results in zip(orders, answers, strict=True):
            assert labels(results) == [wanted[index] for index in order]
    assert len(written) == 13


def test_tasks_have_memory_of_their_own_and_a_cancelled_one_spoils_nothing(
    daemon: Daemon, batch: Images, written: list[int]
) -> None:
    async def run() -> None:
        async with delen.AsyncClient(daemon.unix_url) as client:
            assert client.transport == "shm"
            wanted = labels(await client.infer(batch))
            under_way = asyncio.ensure_future(client.infer(batch[::-1]))
            while len(written) < 2:
                await asyncio.sleep(0)
            under_way.cancel()
            with suppress(asyncio.CancelledError):
                await under_way
            orders = [np.roll(np.arange(len(batch)), turn) for turn in range(4)]
            answers = await asyncio.gather(*(client.infer(batch[order]) for order in orders))
            for order, results in zip(orders, answers, strict=True):
                assert labels(results) == [wanted[index] for index in order]

    asyncio.run(run())
    assert len(written) == 6


def test_what_is_too_much_for_memory_is_sent(
    daemon: Daemon, batch: Images, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delen.sdk.idle._MOST_MEMORY", batch.nbytes)
    with delen.Client(daemon.unix_url) as client:
        assert len(client.infer(batch)) == len(batch)
    assert not written


def test_a_system_without_such_memory_sends(
    daemon: Daemon, batch: Images, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with delen.Client(daemon.unix_url) as client:
        assert client.transport == "unix"
        assert len(client.infer(batch)) == len(batch)
    assert not written


@contextmanager
def forwarding(path: str, own: Path) -> Iterator[str]:
    """A Unix socket that passes on bytes, as a proxy does, and no files."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(path)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(own))
        listening.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield f"unix://{own}"
        listening.shutdown(socket.SHUT_RDWR)


def test_a_proxy_that_passes_no_memory_on_is_noticed(
    path: str, batch: Images, written: list[int], tmp_path: Path
) -> None:
    with forwarding(path, tmp_path / "s") as url, delen.Client(url) as client:
        assert len(client.infer(batch)) == len(batch)
        assert client.transport == "unix"
    assert not written


def test_a_daemon_that_starts_again_gets_memory_again(
    launcher: Launcher, batch: Images, written: list[int], tmp_path: Path
) -> None:
    config = {"server": {"socket": str(tmp_path / "d.sock")}}
    daemon = launcher.start(config)
    with delen.Client(daemon.unix_url) as client:
        wanted = labels(client.infer(batch))
        daemon.process.kill()
        daemon.process.wait()
        daemon = launcher.start(config)
        assert labels(client.infer(batch)) == wanted
        assert client.transport == "shm"
    assert len(written) == 2
    assert daemon.terminate() == 0


CHILDREN = """
import os, sys
import numpy as np
import delen

batch = np.zeros((int(sys.argv[2]), 32, 32, 3), np.uint8)
client = delen.Client(sys.argv[1])
client.infer(batch)
for number in range(3):
    if os.fork() == 0:
        answers = client.infer(batch, stream=str(number))
        assert client.transport == "shm"
        os._exit({str(number)} != {answer.stream for answer in answers})
client.infer(batch)
assert all(os.wait()[1] == 0 for _ in range(3))
print("well", flush=True)
os.kill(os.getpid(), 9)
"""


def test_forked_and_killed_clients_leave_nothing_behind(daemon: Daemon, batch: Images) -> None:
    assert daemon.unix_url is not None
    maps = Path(f"/proc/{daemon.process.pid}/maps")
    before = maps.read_text().count("memfd:delen")
    ended = subprocess.run(
        [sys.executable, "-c", CHILDREN, daemon.unix_url, str(len(batch))],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment(),
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "well\n"), ended.stderr
    wait_until(
        lambda: maps.read_text().count("memfd:delen") <= before, "the daemon lets go of memory"
    )


# what a client may do by itself


def memory(size: int = SIZE, seals: int = SEALS, is_whole: bool = True) -> tuple[int, mmap.mmap]:
    file = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    if is_whole:
        os.posix_fallocate(file, 0, size)
    mapped = mmap.mmap(file, size)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file, mapped


class Shared:
    """A connection that brings ``files``; ``held`` is how much the daemon has of them."""

    def __init__(self, path: str, *files: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60.0)
        self._socket.connect(path)
        socket.send_fds(self._socket, [ASK], files)
        status, answer = self._answer()
        assert status == 200
        self.held = answer["bytes"]

    def ask(
        self,
        named: str,
        content_type: str = "application/octet-stream",
        body: bytes = b"",
        address: str = "POST /v1/infer",
    ) -> tuple[int, Any]:
        head = (
            f"{address} HTTP/1.1\r\nHost: delen\r\nContent-Type: {content_type}\r\n"
            f"{HEADER}: {named}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode("latin-1") + body)
        return self._answer()

    def _answer(self) -> tuple[int, Any]:
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        return response.status, json.loads(response.read())

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def test_a_tensor_a_picture_and_json_may_lie_in_memory(
    daemon: Daemon, path: str, images: Images, png: Callable[[Images], bytes]
) -> None:
    file, mapped = memory()
    label = daemon.api.raw(images[0]).json()["predictions"][0]["label"]
    bodies = {
        "application/octet-stream": images[0].tobytes(),
        "image/png": png(images[0]),
        "application/json": json.dumps({"input": images[0].tolist()}).encode(),
    }
    with Shared(path, file) as shared:
        assert shared.held == SIZE
        for content_type, body in bodies.items():
            mapped[7 : 7 + len(body)] = body
            status, answer = shared.ask(f"7+{len(body)}", content_type)
            assert (status, answer["predictions"][0]["label"]) == (200, label)
        plan = b'{"min_accuracy": 0.8}'
        mapped[: len(plan)] = plan
        status, answer = shared.ask(f"0+{len(plan)}", "application/json", address="POST /v1/plan")
        assert (status, answer["feasible"]) == (200, True)


@pytest.mark.parametrize(
    "named",
    ["0+0", "-1+9", f"0+{SIZE + 1}", f"1+{SIZE}", f"{SIZE}+1", "0+1e3", "9", "", "9" * 100, "0+²"],
)
def test_what_is_not_in_memory_is_refused_and_named(path: str, named: str) -> None:
    file, _ = memory()
    with Shared(path, file) as shared:
        status, answer = shared.ask(named)
        assert (status, answer["code"], answer["field"]) == (400, "invalid_input", HEADER)
        assert shared.ask(f"0+{SAMPLE}")[0] == 200


def test_a_body_in_two_places_is_refused(path: str) -> None:
    file, _ = memory()
    with Shared(path, file) as shared:
        status, answer = shared.ask(f"0+{SAMPLE}", body=b"body")
        assert (status, answer["field"]) == (400, HEADER)


def test_a_limit_on_bodies_holds_in_memory(path: str) -> None:
    file, _ = memory(2 * SIZE)
    with Shared(path, file) as shared:
        status, answer = shared.ask(f"0+{2 * SIZE}")
        assert (status, answer["code"]) == (413, "too_large")


def test_memory_is_of_its_connection_alone(daemon: Daemon, path: str) -> None:
    file, _ = memory()
    with Shared(path, file) as shared, Shared(path) as other:
        assert (shared.held, other.held) == (SIZE, 0)
        status, answer = other.ask(f"0+{SAMPLE}")
        assert (status, answer["field"]) == (400, HEADER)
    over_tcp = daemon.api.post(
        "/v1/infer", content_type="application/octet-stream", headers={HEADER: f"0+{SAMPLE}"}
    )
    assert over_tcp.error(400, "invalid_input")["field"] == HEADER
    assert daemon.api.get("/v1/memory").json() == {"bytes": 0}


@pytest.fixture(
    params=["shrinks", "has holes later", "has holes", "is empty", "is a file", "a pipe"]
)
def unsafe(request: pytest.FixtureRequest, tmp_path: Path) -> int:
    """What a client could make the daemon die of, or hang on."""
    if request.param == "is a file":
        (tmp_path / "file").write_bytes(bytes(SIZE))
        return os.open(tmp_path / "file", os.O_RDWR)
    if request.param == "a pipe":
        return os.pipe()[0]
    seals = {"shrinks": FUTURE_WRITE, "has holes later": fcntl.F_SEAL_SHRINK}
    size = 0 if request.param == "is empty" else SIZE
    if size == 0:
        file = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
        return file
    return memory(size, seals.get(request.param, SEALS), request.param != "has holes")[0]


def test_memory_that_is_not_safe_is_not_taken(path: str, unsafe: int) -> None:
    with Shared(path, unsafe) as shared:
        assert shared.held == 0
    os.close(unsafe)


def test_memory_cannot_be_taken_back_in_use(path: str) -> None:
    file, mapped = memory()
    with Shared(path, file) as shared:
        with pytest.raises(PermissionError):
            os.ftruncate(file, 0)
        with pytest.raises(OSError, match="not permitted"):
            mapped.madvise(mmap.MADV_REMOVE)
        os.close(file)
        mapped.close()
        assert shared.ask(f"0+{SAMPLE}")[0] == 200


def test_many_files_at_once_are_one(path: str, daemon: Daemon) -> None:
    files = Path(f"/proc/{daemon.process.pid}/fd")
    before = len(list(files.iterdir()))
    first, second = memory()[0], memory(2 * SIZE)[0]
    with Shared(path, first, second, *[first] * 50) as shared:
        assert shared.held in (0, SIZE)
    wait_until(lambda: len(list(files.iterdir())) <= before, "all files are closed")


def test_a_client_that_says_nothing_first_is_served(path: str) -> None:
    silent = Api(f"unix://{path}").connect()
    silent.connect()
    with Shared(path, memory()[0]) as shared:
        assert shared.held == SIZE
    silent.request("GET", "/v1/memory")
    assert silent.getresponse().status == 200
    silent.close()
