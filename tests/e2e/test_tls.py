"""A daemon with a certificate, and the clients that trust it or do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import delen
from delen.commands.doctor_checks import check_configuration
from delen.daemon.config import read_config
from delen.errors import ConfigError, DaemonUnreachable
from tests.builders.certificate import expire, make_certificate
from tests.builders.daemon import Daemon, Launcher

IMAGE = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def served(launcher: Launcher, files: tuple[Path, Path]) -> Iterator[Daemon]:
    certificate, key = map(str, files)
    server = {"tls_cert": certificate, "tls_key": key, "grpc_port": 0}
    daemon = launcher.start({"server": server})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def test_clients_that_trust_the_certificate_are_answered(
    served: Daemon, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.url.startswith("https://")
    with delen.Client(served.url, ca_file=str(files[0])) as client:
        assert [client.infer(IMAGE).exits for _ in range(3)] == [5, 5, 5]
        assert client.load("cifar10-resnet")  # over loopback, as without a certificate
    monkeypatch.setenv("DELEN_CA_FILE", str(files[0]))

    async def ask() -> int:
        async with delen.AsyncClient(served.url) as client:
            return (await client.infer(IMAGE)).exits

    assert asyncio.run(ask()) == 5


def test_others_learn_how_it_is_trusted(
    served: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with delen.Client(served.url) as client, pytest.raises(DaemonUnreachable, match="DELEN_CA_"):
        client.plan()
    with pytest.raises(ConfigError, match="ca_file"):
        delen.Client(served.url, ca_file=str(tmp_path / "absent"))
    monkeypatch.setenv("DELEN_CA_FILE", str(tmp_path))
    with pytest.raises(ConfigError, match="DELEN_CA_FILE"):
        delen.Client(served.url)


def test_without_tls_nothing_is_answered_but_at_the_socket(served: Daemon) -> None:
    url = served.url.replace("https", "http")
    with delen.Client(url) as client, pytest.raises(DaemonUnreachable):
        client.plan()
    assert served.unix_url is not None
    with delen.Client(served.unix_url) as client:
        assert client.infer(IMAGE).exits == 5


def test_grpc_has_the_certificate_too(served: Daemon, files: tuple[Path, Path]) -> None:
    assert served.grpc_url is not None
    address = served.grpc_url.removeprefix("grpcs://")
    with triton.InferenceServerClient(address, ssl=True, root_certificates=str(files[0])) as client:
        assert client.is_server_live()
    with triton.InferenceServerClient(address) as client, pytest.raises(InferenceServerException):
        client.get_server_metadata()


def test_a_reload_takes_a_new_certificate_and_keeps_the_old_one_where_it_is_damaged(
    served: Daemon, files: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = files
    before = key.read_bytes()
    key.write_text("no key")
    assert "nothing reloaded" in served.reload()
    key.write_bytes(before)
    with delen.Client(served.url, ca_file=str(certificate)) as client:
        assert client.plan()
    new, new_key = make_certificate(tmp_path)
    certificate.write_bytes(new.read_bytes())
    key.write_bytes(new_key.read_bytes())
    assert "the certificate" in served.reload()
    with delen.Client(served.url, ca_file=str(new)) as client:
        assert client.plan()
    assert served.grpc_url is not None
    credentials = grpc.ssl_channel_credentials(new.read_bytes())
    with grpc.secure_channel(served.grpc_url.removeprefix("grpcs://"), credentials) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)


def test_one_file_alone_is_refused(launcher: Launcher, files: tuple[Path, Path]) -> None:
    ended = launcher.refused({"server": {"tls_cert": str(files[0])}})
    assert ended.returncode == 2
    assert "server.tls_cert" in ended.stderr and "server.tls_key" in ended.stderr


def test_a_certificate_that_has_expired_is_said_at_the_start_and_by_doctor(
    launcher: Launcher, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)
    expire(certificate, key)
    daemon = launcher.start({"server": {"tls_cert": str(certificate), "tls_key": str(key)}})
    said = f"server.tls_cert {certificate}: certificate has expired, so clients refuse it"
    assert daemon.log().count(said) == 1
    assert daemon.reload().count(said) >= 1
    assert daemon.terminate() == 0
    config = read_config(
        None, {"DELEN_SERVER__TLS_CERT": str(certificate), "DELEN_SERVER__TLS_KEY": str(key)}
    )
    check = check_configuration(config)
    assert check.state == "wrong" and said in check.found
