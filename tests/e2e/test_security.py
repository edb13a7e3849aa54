"""Who belongs, and who does not: web pages, other machines, other users of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen
from delen.errors import Forbidden, NotFound
from tests.builders.daemon import Api
from tests.other_user import NOBODY, as_other_user, open_folder

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher

UNLOAD = "/v1/models/cifar10-resnet/unload"
OIP_UNLOAD = "/v2/repository/models/cifar10-resnet/unload"
EVIL = {"Origin": "http://evil.example"}


@pytest.mark.parametrize("path", [UNLOAD, OIP_UNLOAD])
def test_a_page_of_another_site_unloads_no_model(api: Api, path: str) -> None:
    """A page can send text without asking first, and browsers say whose page it is; where its name
    resolves to this machine, Host is that name."""
    api.post(path, body=b"{}", content_type="text/plain", headers=EVIL).error(403, "forbidden")
    api.post(path, headers={"Host": "evil.example"}).error(403, "forbidden")
    assert api.get("/v1/models/cifar10-resnet").json()["state"] == "ready"


def test_a_simple_post_unloads_no_model_and_json_is_not_asked_of_triton(
    api: Api, image: NDArray[np.uint8]
) -> None:
    api.post(UNLOAD, body=b"{}", content_type="text/plain").error(415, "unsupported_media_type")
    load = OIP_UNLOAD.replace("unload", "load")
    assert api.post(load, body=b"{}", content_type="text/plain").status == 200
    assert api.raw(image).status == 200


def test_a_page_of_another_site_spends_no_energy(api: Api, image: NDArray[np.uint8]) -> None:
    raw = {"body": image.tobytes(), "content_type": "application/octet-stream"}
    api.post("/v1/infer", headers=EVIL, **raw).error(403, "forbidden")
    own = {"Origin": api.url}
    assert api.post("/v1/infer", headers=own, **raw).status == 200


def test_other_machines_are_not_let_in_without_a_token(launcher: Launcher, tmp_path: Path) -> None:
    ended = launcher.refused({"server": {"host": "0.0.0.0"}})
    assert ended.returncode == 2
    assert "server.token_file" in ended.stderr and "server.insecure" in ended.stderr
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o600)
    config = {"host": "0.0.0.0", "token_file": str(tmp_path / "token")}
    daemon = launcher.start({"server": config, "models": {"load": []}})
    assert "server.insecure" not in daemon.log()
    assert daemon.terminate() == 0


@pytest.fixture(scope="module")
def bound(launcher: Launcher) -> Iterator[Daemon]:
    """A daemon on which nobody's apps are the tenant ``camera``, and root's are ``door``."""
    with open_folder() as folder:
        (folder / "token").write_text("secret")
        daemon = launcher.start(
            {
                "server": {"socket": str(folder / "d.sock"), "socket_mode": "0666"},
                "tenants": {"users": [f"{NOBODY}=camera", "0=door"]},
            }
        )
        yield daemon
        assert daemon.terminate() == 0
        assert "Traceback" not in daemon.log()


@contextmanager
def client_of(daemon: Daemon, is_other: bool, tenant: str, over: str) -> Iterator[delen.Client]:
    url = daemon.unix_url if over == "unix" else daemon.url
    assert url is not None
    with delen.Client(url, tenant=tenant) as client:
        if not is_other:
            yield client
            return
        with as_other_user():
            yield client


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for two users")
@pytest.mark.parametrize("over", ["unix", "tcp"])
def test_an_app_spends_its_own_tenants_budget_and_reads_its_own_receipts(
    bound: Daemon, over: str, images: NDArray[np.uint8]
) -> None:
    with client_of(bound, True, "default", over) as camera:
        request_id = camera.infer(images[0]).request_id
        assert camera.request(request_id).tenant == "camera"
        with pytest.raises(Forbidden):
            camera.set_tenant("camera", weight=100.0)
    with client_of(bound, True, "door", over) as thief, pytest.raises(Forbidden):
        thief.infer(images[0])
    with client_of(bound, True, "door", over) as thief, pytest.raises(Forbidden):
        thief.plan()
    with client_of(bound, False, "default", over) as door:
        own = door.infer(images[0]).request_id
        assert door.request(own).tenant == "door"
        with pytest.raises(NotFound):
            door.request(request_id)
        door.set_tenant("camera", weight=2.0)
    with client_of(bound, True, "default", over) as camera, pytest.raises(NotFound):
        camera.request(own)


def test_no_more_tenants_have_settings_than_are_allowed(
    launcher: Launcher, own_state: Callable[[], Path]
) -> None:
    config: dict[str, Any] = {"tenants": {"most": 2}, "models": {"load": []}}
    daemon = launcher.start({**config, "state": {"path": str(own_state())}})
    with delen.Client(daemon.url) as client:
        for name in ("a", "b", "a"):
            client.set_tenant(name, weight=2.0)
        with pytest.raises(Forbidden, match=r"tenants\.most"):
            client.set_tenant("c", weight=2.0)
        client.set_tenant("a", weight=None)
        client.set_tenant("c", weight=2.0)
    launcher.stop(daemon)


def test_onnx_runtime_reports_nothing() -> None:
    code = "import delen.engine.backends.onnx, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    ended = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True)
    assert ended.stdout == "1\n", ended.stderr
