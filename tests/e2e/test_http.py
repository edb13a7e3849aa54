"""HTTP at its borders: framing, bodies that are bombs, clients that are slow or many."""

from __future__ import annotations

import gzip
import json
import random
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.fuzz import mutate
from tests.builders.daemon import wait_until

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

Image8 = NDArray[np.uint8]
BODY = bytes(3072)
RAW = b"Content-Type: application/octet-stream\r\n"
POST = b"POST /v1/infer HTTP/1.1\r\nHost: x\r\n" + RAW
CHUNKS = b"c00\r\n" + BODY + b"\r\n0\r\n\r\n"
NEXT = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
MOST_MEMORY = 60e6


def exchange(daemon: Daemon, sent: bytes) -> tuple[list[int], bytes]:
    """The status of each answer to ``sent``, and all that came until the daemon closed."""
    with daemon.api.socket() as connection:
        connection.settimeout(30.0)
        with suppress(OSError):
            connection.sendall(sent)
        received = b""
        with suppress(ConnectionResetError):
            received = b"".join(iter(partial(connection.recv, 65_536), b""))
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]], received


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 3072\r\nContent-Length: 0\r\n\r\n" + BODY,
        POST + b"Content-Length: 0\r\nContent-Length: 3072\r\n\r\n" + BODY,
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n" + CHUNKS,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
        POST + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
        POST + b"Transfer-Encoding:\r\nContent-Length: 3072\r\n\r\n" + BODY,
        POST + b"Content-Length : 3072\r\n\r\n" + BODY,
        POST + b"Content-Length: 30\r\n 72\r\n\r\n" + BODY,
        POST + b"Content-Length: +3072\r\n\r\n" + BODY,
        POST + b"Content-Length: 3_072\r\n\r\n" + BODY,
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
        b"GET /healthz HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\nC: d\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /healthz\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[sent.index(b"\r\n") :][:70]),
)
def test_a_request_whose_framing_is_in_doubt_ends_the_connection(
    daemon: Daemon, sent: bytes
) -> None:
    statuses, received = exchange(daemon, sent + NEXT)
    assert statuses == [400], received
    document = json.loads(received.partition(b"\r\n\r\n")[2])
    assert document["code"] == "invalid_input" and document["error"]


CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
        (b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
        (b"OPTIONS /v1/infer HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
        (b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
        (b"TRACE /healthz HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 405),
        (b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 404),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_unusual_is_answered_once(daemon: Daemon, sent: bytes, status: int) -> None:
    statuses, received = exchange(daemon, sent)
    assert statuses == [status], received
    if sent.startswith(b"HEAD"):
        assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
@pytest.mark.parametrize(
    ("head", "first"),
    [
        (POST + b"Content-Length: 3072\r\n", b"100"),
        (POST + b"Content-Length: 99000000\r\n", b"413"),
        (POST.replace(b"infer", b"nothing") + b"Content-Length: 3072\r\n", b"404"),
        (POST.replace(b"v1", b"v1/models/none") + b"Content-Length: 3072\r\n", b"404"),
        (POST.replace(b"octet", b"strange") + b"Content-Length: 3072\r\n", b"415"),
    ],
)
def test_a_client_is_asked_for_its_body_only_if_it_is_wanted(
    daemon: Daemon, head: bytes, first: bytes, value: bytes
) -> None:
    with daemon.api.socket() as connection:
        connection.sendall(head + b"Expect: " + value + b"\r\n\r\n")
        assert connection.recv(65_536)[9:12] == first
        if first == b"100":
            connection.sendall(BODY)
            assert connection.recv(65_536)[9:12] == b"200"


def test_http_1_0_is_sent_no_100(daemon: Daemon) -> None:
    head = POST.replace(b"1.1", b"1.0") + b"Content-Length: 3072\r\nExpect: 100-continue\r\n\r\n"
    statuses, _ = exchange(daemon, head + BODY)
    assert statuses == [200]


def test_a_packed_body_is_unpacked_up_to_the_limit(api: Api, image: Image8) -> None:
    document = json.dumps({"input": image.tolist()}).encode()

    def ask(body: bytes, coding: str, path: str = "/v1/infer") -> Any:
        return api.post(
            path,
            body=body,
            content_type="application/json",
            headers={"Content-Encoding": coding},
        )

    assert ask(gzip.compress(document), "gzip").json()["exits"] == 5
    assert ask(gzip.compress(b'{"min_accuracy": 0.9}'), "GZIP", "/v1/plan").status == 200
    ask(document, "gzip").error(400, "invalid_input")
    ask(gzip.compress(document)[:-9], "gzip").error(400, "invalid_input")
    ask(gzip.compress(document.ljust(1_000_001)), "gzip").error(413, "too_large")
    assert "Content-Encoding" in ask(document, "br").error(415, "unsupported_media_type")["error"]


def _npy(sizes: list[bytes]) -> bytes:
    shape = b",".join(sizes)
    header = b"{'descr':'<u1','fortran_order':False,'shape':(" + shape + b",)}"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header


@pytest.fixture(scope="module")
def roomy(launcher: Launcher) -> Iterator[Daemon]:
    """A daemon with the usual limit of bodies, which waits long for those that come slowly."""
    daemon = launcher.start({"server": {"head_seconds": 60.0}})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def peak(daemon: Daemon) -> float:
    """The most bytes of memory that the daemon has had."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (json.dumps({"input": ["a" * 10_000] + [""] * 50_000}), "application/json", 400),
        (json.dumps({"input": [[]] * 200_000}), "application/json", 400),
        ("[" * 1_000_000, "application/json", 400),
        ('{"input": [' + "0," * 3_000_000 + "0]}", "application/json", 413),
        ('{"input": [' + ",".join(["9" * 4000] * 240) + "]}", "application/json", 400),
        (_npy([b"9" * 4300] * 450), "application/x-npy", 400),
        (_npy([b"1"] * 400_000), "application/x-npy", 400),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_that_is_a_bomb_takes_no_memory(
    roomy: Daemon, body: str | bytes, content_type: str, status: int, images: Image8
) -> None:
    assert roomy.api.raw(images[0]).status == 200
    before = peak(roomy)
    whole = body.encode() if isinstance(body, str) else body
    assert roomy.api.post("/v1/infer", body=whole, content_type=content_type).status == status
    assert peak(roomy) - before < MOST_MEMORY


def test_a_receipt_says_how_long_its_request_took_to_come_in(api: Api, image: Image8) -> None:
    prompt = api.raw(image).json()["receipt"]
    assert 0 <= prompt["receiving_ms"] <= prompt["latency_ms"]["queue"]
    body, began = image.tobytes(), time.monotonic()
    slow = api.connect()
    with closing(slow):
        slow.putrequest("POST", "/v1/infer")
        slow.putheader("Content-Type", "application/octet-stream")
        slow.putheader("Content-Length", str(len(body)))
        slow.endheaders(body[:1000])
        time.sleep(0.1)  # on a link that is so slow
        slow.send(body[1000:])
        sent = 1e3 * (time.monotonic() - began)
        receipt = json.loads(slow.getresponse().read())["receipt"]
    assert 90 < receipt["receiving_ms"] <= receipt["latency_ms"]["queue"]
    assert receipt["receiving_ms"] < sent + receipt["latency_ms"]["value"]


def _states(daemon: Daemon) -> set[str]:
    """Of the threads of ``daemon``, as the kernel has them."""
    threads = Path(f"/proc/{daemon.process.pid}/task").iterdir()
    return {(each / "stat").read_text().rpartition(")")[2].split()[0] for each in threads}


def test_a_receipt_counts_what_a_request_waited_in_the_kernel(
    daemon: Daemon, image: Image8
) -> None:
    kind, stopped = {"Content-Type": "application/octet-stream"}, 0.3
    with ExitStack() as opened:
        clients = [opened.enter_context(closing(daemon.api.connect())) for _ in range(3)]
        clients[0].request("GET", "/healthz")
        assert clients[0].getresponse().read()
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: _states(daemon) <= {"T"}, "all its threads are stopped")
            for client in clients:
                client.request("POST", "/v1/infer", image.tobytes(), kind)
            time.sleep(stopped)  # for which nobody reads
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        receipts = [json.loads(client.getresponse().read())["receipt"] for client in clients]
    for receipt in receipts:
        assert receipt["latency_ms"]["value"] >= receipt["latency_ms"]["queue"] > 800 * stopped
        assert receipt["receiving_ms"] > 800 * stopped
    assert daemon.api.raw(image).json()["receipt"]["receiving_ms"] < 800 * stopped


def test_slow_and_idle_clients_delay_nobody(roomy: Daemon, images: Image8) -> None:
    """Of each kind more than the daemon has threads."""
    with ExitStack() as opened:

        def begin(sent: bytes) -> socket.socket:
            client = opened.enter_context(roomy.api.socket())
            client.sendall(sent)
            return client

        slow = []
        for _ in range(40):
            begin(b"")
            slow.append(begin(b"GET /healthz HTTP/1.1\r\nHo"))
            slow.append(begin(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"))
            slow.append(begin(POST + b"Content-Length: 3072\r\n\r\n"))
            slow.append(begin(b"PUT /v1/power HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"))
        for _ in range(5):
            for client in slow:
                client.sendall(b"a")
            assert roomy.api.get("/healthz").status == 200
            assert roomy.api.get("/v1/models").status == 200
            assert roomy.api.raw(images[0]).status == 200


def test_a_daemon_without_files_recovers(
    launcher: Launcher, images: Image8, until: Callable[..., Any]
) -> None:
    daemon = launcher.start({"server": {"socket": ""}})
    assert daemon.api.raw(images[0]).status == 200
    process = daemon.process.pid
    limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{process}/fd").iterdir()))
    resource.prlimit(process, resource.RLIMIT_NOFILE, (used + 5, limits[1]))
    with ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(daemon.api.socket())
        daemon.wait_for_log("no connection can be accepted")
    until(lambda: daemon.api.get("/healthz").status == 200, "it accepts again")
    assert daemon.api.raw(images[0]).status == 200
    assert daemon.log().count("no connection can be accepted") == 1
    assert daemon.terminate() == 0


@pytest.fixture(scope="module")
def narrow(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a token, and with room for one large body."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("sesame")
    server = {"token_file": str(token), "max_body_mb": 1.0, "max_bodies_mb": 1.0}
    daemon = launcher.start({"server": server})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def test_bodies_that_are_held_together_are_bounded(
    narrow: Daemon, images: Image8, until: Callable[..., Any]
) -> None:
    batch = images.tobytes() * 2
    head = POST + b"Content-Length: 921600\r\n\r\n"
    with narrow.api.socket() as slow:
        slow.sendall(head + bytes(900_000))

        def post() -> Any:
            return narrow.api.post("/v1/infer", body=batch, content_type="application/octet-stream")

        for _ in range(20):  # meanwhile the loop reads what the slow client has sent
            assert narrow.api.get("/healthz").status == 200
        refused = post()
        assert "server.max_bodies_mb" in refused.error(503, "overloaded")["error"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert narrow.api.raw(images[0]).status == 200, "small bodies need no room"
    until(lambda: post().status == 200, "room again once the client has left")


@pytest.mark.parametrize(("sent", "status"), [(b"", 401), (b"Authorization: Bearer open\r\n", 403)])
def test_who_may_not_change_anything_is_not_asked_for_a_body(
    narrow: Daemon, sent: bytes, status: int
) -> None:
    head = b"PUT /v1/power HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 17\r\n"
    with narrow.api.socket() as connection:
        connection.sendall(head + sent + b"\r\n")
        assert int(connection.recv(65_536)[9:12]) == status


@pytest.mark.parametrize("path", ["/v1/plan", "/v2/repository/index"])
def test_bodies_of_control_addresses_are_small(roomy: Daemon, path: str) -> None:
    whole = json.dumps({"tenant": "t" * 4_000_000}).encode()
    for body, headers in ((whole, {}), (gzip.compress(whole), {"Content-Encoding": "gzip"})):
        answer = roomy.api.post(path, body=body, content_type="application/json", headers=headers)
        answer.error(413, "too_large")


@pytest.mark.parametrize("seed", range(4))
def test_wrong_requests_are_refused_and_harm_nobody(
    roomy: Daemon, seed: int, images: Image8
) -> None:
    """Of each address one, with something done to it: each is answered or closed, by no failure."""
    draw = random.Random(seed)
    requests = [
        POST + b"Content-Length: 3072\r\n\r\n" + BODY,
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        POST.replace(b"v1/infer", b"v2/models/cifar10-resnet/infer") + b"Content-Length: 0\r\n\r\n",
        b'PUT /v1/tenants/a%2Fb HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"weight": 2}',
        b"POST /v1/models/none/load HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        b"GET /v1/power/history?seconds=60 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
        b"HEAD /v1/models/cifar10-resnet HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ]
    for _ in range(1000):
        sent = mutate(draw.choice(requests), draw)
        with roomy.api.socket() as client:
            client.settimeout(30.0)
            with suppress(OSError):
                client.sendall(sent + NEXT)
                client.shutdown(socket.SHUT_WR)
            received = b""
            with suppress(ConnectionResetError):
                received = b"".join(iter(partial(client.recv, 65_536), b""))
        for part in received.split(b"HTTP/1.1 ")[1:]:
            assert int(part[:3]) < 500, (sent, received)
    assert roomy.api.raw(images[0]).status == 200
