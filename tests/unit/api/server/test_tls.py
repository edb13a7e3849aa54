"""TCP addresses with a certificate: what holds before a request is there holds there, too."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import api.server.listener
from api.server.connection import KEY, Patience
from api.server.server import HttpServer
from api.server.socket_file import SocketFile
from api.server.tls import Tls
from delen.errors import ConfigError
from tests.builders.certificate import make_certificate

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    connection = scope["state"][KEY]
    connection.pass_body(3)
    read = (await receive())["body"]
    text = json.dumps({"scheme": scope["scheme"], "read": read.decode()}).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
    connection.request_ended()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(files: tuple[Path, Path]) -> Tls:
    return Tls(*map(str, files))


@contextmanager
def serving(
    tls: Tls, app: Any = answer, head: float = 20.0, idle: float = 20.0
) -> Iterator[tuple[str, int]]:
    server = HttpServer(app, 10, Patience(head, idle), tls)
    url = server.listen_tcp("127.0.0.1", 0)
    assert url.startswith("https://")
    server.start()
    try:
        yield "127.0.0.1", int(url.rpartition(":")[2])
    finally:
        server.stop()


def encrypted(address: tuple[str, int], trusted: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=trusted)
    return context.wrap_socket(
        socket.create_connection(address, timeout=20.0), server_hostname="localhost"
    )


def test_requests_are_answered_one_after_the_other(tls: Tls, files: tuple[Path, Path]) -> None:
    with serving(tls) as address, encrypted(address, files[0]) as client:
        for _ in range(2):
            client.sendall(REQUEST)
            received = b""
            while not received.endswith(b"}"):
                received += client.recv(65_536)
            assert json.loads(received.partition(b"\r\n\r\n")[2]) == {
                "scheme": "https",
                "read": "abc",
            }


def test_a_client_that_agrees_on_nothing_is_closed(tls: Tls) -> None:
    with serving(tls, head=0.2) as address:
        with socket.create_connection(address, timeout=20.0) as silent:
            assert silent.recv(1) == b""
        with socket.create_connection(address, timeout=20.0) as plain, suppress(OSError):
            plain.sendall(REQUEST)
            assert b"HTTP" not in plain.recv(65_536)


def test_a_head_that_does_not_come_is_refused(tls: Tls, files: tuple[Path, Path]) -> None:
    with serving(tls, head=0.2) as address, encrypted(address, files[0]) as client:
        client.sendall(REQUEST[:20])
        assert client.recv(65_536).startswith(b"HTTP/1.1 408")


def test_too_many_that_agree_on_nothing_yet_are_closed(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.server.listener, "MOST_HANDSHAKES", 1)
    with (
        serving(tls) as address,
        socket.create_connection(address, timeout=20.0),
        socket.create_connection(address, timeout=20.0) as second,
        suppress(ConnectionResetError),
    ):
        assert second.recv(1) == b""


def test_a_client_that_takes_nothing_of_its_answer_is_closed(
    tls: Tls, files: tuple[Path, Path]
) -> None:
    has_gone = threading.Event()

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        scope["state"][KEY].on_gone = has_gone.set
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not has_gone.is_set():
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})

    with serving(tls, flood, idle=0.2) as address, encrypted(address, files[0]) as client:
        client.sendall(REQUEST)
        assert has_gone.wait(20)


def test_a_client_that_leaves_is_noticed_while_its_request_runs(
    tls: Tls, files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    has_gone, has_begun = threading.Event(), threading.Event()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        left = asyncio.Event()
        scope["state"][KEY].on_gone = left.set
        has_begun.set()
        await left.wait()
        has_gone.set()

    with caplog.at_level(logging.WARNING), serving(tls, wait) as address:
        with encrypted(address, files[0]) as client:
            client.sendall(REQUEST)
            assert has_begun.wait(20)
        assert has_gone.wait(20)
    assert caplog.text == ""


def test_a_unix_socket_stays_as_it_is(tls: Tls, tmp_path: Path) -> None:
    server = HttpServer(answer, 10, Patience(), tls)
    url = server.listen_unix(SocketFile(str(tmp_path / "d.sock"), 0o600))
    assert url is not None and url.startswith("unix://")
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(url.removeprefix("unix://"))
            client.sendall(REQUEST)
            assert b'"scheme": "http"' in client.recv(65_536)
    finally:
        server.stop()


def test_new_connections_have_the_certificate_that_was_read_again(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = Tls(str(certificate), str(key))
    other, other_key = make_certificate(tmp_path, "other.example")
    with serving(tls) as address:
        encrypted(address, certificate).close()
        certificate.write_bytes(other.read_bytes())
        key.write_bytes(other_key.read_bytes())
        tls.use(tls.read())
        context = ssl.create_default_context(cafile=other)
        with context.wrap_socket(
            socket.create_connection(address, timeout=20.0), server_hostname="other.example"
        ) as client:
            assert client.version() is not None


def test_one_file_needs_the_other(files: tuple[Path, Path]) -> None:
    assert Tls.of("", "") is None
    with pytest.raises(ConfigError, match=r"tls_cert needs server.tls_key"):
        Tls.of(str(files[0]), "")
    with pytest.raises(ConfigError, match=r"tls_key needs server.tls_cert"):
        Tls.of("", str(files[1]))


@pytest.mark.parametrize(
    ("certificate", "key", "named"),
    [
        ("absent", "k", "server.tls_cert"),
        ("c", "absent", "server.tls_key"),
        ("k", "c", "tls_cert .*tls_key are swapped"),
        ("empty", "k", "tls_cert .*empty is empty"),
        ("c", "empty", "tls_key .*empty is empty"),
        ("c", "c", "tls_key .*has no PRIVATE KEY"),
    ],
)
def test_files_that_cannot_serve_are_named(
    files: tuple[Path, Path], tmp_path: Path, certificate: str, key: str, named: str
) -> None:
    for file, name in zip(files, "ck", strict=True):
        (tmp_path / name).write_bytes(file.read_bytes())
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=named):
        Tls(str(tmp_path / certificate), str(tmp_path / key))


def test_files_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    other, other_key = make_certificate(tmp_path, "other.example")
    load = ssl.SSLContext.load_cert_chain

    def replaced(context: ssl.SSLContext, *arguments: Any, **options: Any) -> None:
        certificate.write_bytes(other.read_bytes())
        key.write_bytes(other_key.read_bytes())
        load(context, *arguments, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", replaced)
    with pytest.raises(ConfigError, match="changed while"):
        Tls(str(certificate), str(key))


def test_a_key_that_every_user_may_write_is_refused_and_one_to_read_warned_of(
    files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_bytes(files[1].read_bytes())
    key.chmod(0o644)
    Tls(str(files[0]), str(key))
    assert "tls_key" in caplog.text
    key.chmod(0o602)
    with pytest.raises(ConfigError, match="tls_key"):
        Tls(str(files[0]), str(key))
