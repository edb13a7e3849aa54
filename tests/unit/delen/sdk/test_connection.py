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
from tests.builders.certificate import make_certificate


@contextmanager
def encrypting(folder: Path, host: str) -> Iterator[tuple[Path, int]]:
    """A certificate for localhost, and a port of ``host`` that encrypts one connection with it."""
    certificate, key = make_certificate(folder)
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


@pytest.mark.parametrize("content", ["", " \n", "a\nb", "tök"])
def test_a_file_that_has_no_token_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    monkeypatch.setenv("DELEN_TOKEN_FILE", str(file))
    with pytest.raises(ConfigError, match=f"DELEN_TOKEN_FILE: {file} "):
        Client("http://127.0.0.1:9")
