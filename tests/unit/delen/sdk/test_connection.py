"""What clients are told where they cannot be connected."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from delen import Client
from delen.errors import ConfigError, DaemonUnreachable
from tests.builders.certificate import expire, make_certificate


@contextmanager
def encrypting(folder: Path, host: str, is_expired: bool = False) -> Iterator[tuple[Path, int]]:
    """A certificate for localhost, and a port of ``host`` that encrypts one connection with it."""
    certificate, key = make_certificate(folder)
    if is_expired:
        expire(certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server((host, 0)) as listening:

        def serve() -> None:
            with suppress(OSError), listening.accept()[0] as accepted:
                accepted.settimeout(20.0)
                context.wrap_socket(accepted, server_side=True)

        server = threading.Thread(target=serve)
        server.start()
        yield certificate, listening.getsockname()[1]
        server.join()


def test_who_speaks_no_tls_is_told_to_try(tmp_path: Path) -> None:
    with (
        encrypting(tmp_path, "127.0.0.1") as (_, port),
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(DaemonUnreachable, match=f"TLS, ask https://127.0.0.1:{port};"),
    ):
        client.plan()


def test_a_name_that_is_not_in_the_certificate_is_named(tmp_path: Path) -> None:
    with (
        encrypting(tmp_path, "127.0.0.2") as (certificate, port),
        Client(f"https://127.0.0.2:{port}", ca_file=str(certificate)) as client,
        pytest.raises(DaemonUnreachable, match=r"without the name 127\.0\.0\.2") as caught,
    ):
        client.plan()
    assert "not trusted" not in str(caught.value)


def test_who_speaks_tls_to_a_daemon_without_it_is_told_to_try_without() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError), listening.accept()[0] as accepted:
                accepted.settimeout(20.0)
                accepted.recv(100)
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server = threading.Thread(target=serve)
        server.start()
        port = listening.getsockname()[1]
        with (
            Client(f"https://127.0.0.1:{port}") as client,
            pytest.raises(DaemonUnreachable, match=f"ask http://127.0.0.1:{port};"),
        ):
            client.plan()
        server.join()


def test_a_certificate_of_another_time_is_to_be_renewed(tmp_path: Path) -> None:
    with (
        encrypting(tmp_path, "127.0.0.1", is_expired=True) as (certificate, port),
        Client(f"https://127.0.0.1:{port}", ca_file=str(certificate)) as client,
        pytest.raises(DaemonUnreachable, match=r"server\.tls_cert") as caught,
    ):
        client.plan()
    assert "say which certificate" not in str(caught.value)


@pytest.mark.parametrize("content", ["", " \n", "a\nb", "tök"])
def test_a_file_that_has_no_token_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    monkeypatch.setenv("DELEN_TOKEN_FILE", str(file))
    with pytest.raises(ConfigError, match=f"DELEN_TOKEN_FILE: {file} "):
        Client("http://127.0.0.1:9")
