"""System shared memory: what it gives, and what a client might try with it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.builders.daemon import Api, Daemon, Launcher

FOLDER = Path("/dev/shm")
MODEL = "cifar10-resnet"
INFER = f"/v2/models/{MODEL}/infer"
STATUS = "/v2/systemsharedmemory/status"
SAMPLE = 32 * 32 * 3
NOBODY = 65534

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root has files of other users")


@pytest.fixture
def file() -> Iterator[Path]:
    """A file of shared memory with the place for a sample, and an output after it."""
    file = FOLDER / f"delen-test-{secrets.token_hex(4)}"
    file.write_bytes(bytes(SAMPLE + 4096))
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture
def unix(daemon: Daemon) -> Iterator[Api]:
    """The shared daemon by its Unix socket, no region registered before and after."""
    assert daemon.unix_url is not None
    api = Api(daemon.unix_url)
    yield api
    assert api.post("/v2/systemsharedmemory/unregister").status == 200


def register(api: Api, name: str, key: str, size: int = SAMPLE + 4096, offset: int = 0) -> Any:
    document = {"key": key, "offset": offset, "byte_size": size}
    return api.as_json(document, f"/v2/systemsharedmemory/region/{name}/register")


def ask(api: Api, region: str = "r", size: int = SAMPLE, offset: int = 0, **more: Any) -> Any:
    """An infer request whose input is in ``region``."""
    place = {
        "shared_memory_region": region,
        "shared_memory_byte_size": size,
        "shared_memory_offset": offset,
    }
    given = {"name": "input", "datatype": "UINT8", "shape": [1, 32, 32, 3], "parameters": place}
    return api.as_json({"inputs": [given], **more}, INFER)


def output(size: int, offset: int = SAMPLE, name: str = "logits") -> dict[str, Any]:
    place = {
        "shared_memory_region": "r",
        "shared_memory_byte_size": size,
        "shared_memory_offset": offset,
    }
    return {"outputs": [{"name": name, "parameters": place}]}


def test_tensors_go_both_ways_through_a_region(
    unix: Api, file: Path, images: NDArray[np.uint8]
) -> None:
    assert register(unix, "r", f"/{file.name}").status == 200
    file.write_bytes(images[0].tobytes() + bytes(4096))
    answer = ask(unix, **output(40))
    assert answer.status == 200, answer.body
    described = answer.json()["outputs"][0]
    assert "data" not in described
    assert described["parameters"]["shared_memory_byte_size"] == 40
    logits = np.frombuffer(file.read_bytes()[SAMPLE : SAMPLE + 40], np.float32)
    plain = ask(unix).json()["outputs"][0]["data"]
    assert logits == pytest.approx(plain, abs=1e-3)
    classes = ask(unix, **output(100, name="classification"))
    length = classes.json()["outputs"][0]["parameters"]["shared_memory_byte_size"]
    text = file.read_bytes()[SAMPLE : SAMPLE + length]
    assert int.from_bytes(text[:4], "little") == length - 4
    assert text[4:].decode().count(":") == 2


def test_regions_are_listed_and_forgotten(unix: Api, file: Path) -> None:
    assert unix.get(STATUS).json() == []
    assert register(unix, "r", file.name, 100, 8).status == 200
    assert register(unix, "s", f"/{file.name}", 10).status == 200
    described = {"name": "r", "key": file.name, "offset": 8, "byte_size": 100}
    assert unix.get(STATUS).json()[0] == described
    assert unix.get("/v2/systemsharedmemory/region/r/status").json() == [described]
    register(unix, "r", file.name).error(400, "invalid_input")
    for _ in range(2):
        assert unix.post("/v2/systemsharedmemory/region/r/unregister").status == 200
    unix.get("/v2/systemsharedmemory/region/r/status").error(404, "not_found")
    assert [each["name"] for each in unix.get(STATUS).json()] == ["s"]
    ask(unix).error(400, "invalid_input")


def test_the_extension_is_announced_where_it_is_offered(unix: Api, api: Api) -> None:
    assert "system_shared_memory" in unix.get("/v2").json()["extensions"]
    assert "system_shared_memory" not in api.get("/v2").json()["extensions"]


def test_tcp_gets_none_unless_the_configuration_says_so(unix: Api, api: Api, file: Path) -> None:
    assert register(unix, "r", file.name).status == 200
    register(api, "t", file.name).error(403, "forbidden")
    api.get(STATUS).error(403, "forbidden")
    api.post("/v2/systemsharedmemory/unregister").error(403, "forbidden")
    ask(api).error(403, "forbidden")
    assert len(unix.get(STATUS).json()) == 1


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "/..", ".", "/../etc/passwd", "//etc/passwd", "a/b", "/etc/passwd", "nowhere",
     "a\0b", "x" * 300, "\ud800"],
)  # fmt: skip
def test_a_key_is_a_plain_name(unix: Api, key: str) -> None:
    register(unix, "r", key, 1).error(400, "invalid_input")


def test_a_link_a_pipe_and_a_folder_are_no_shared_memory(
    unix: Api, file: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(SAMPLE + 4096))
    link, pipe, folder = (file.with_name(f"{file.name}-{kind}") for kind in "lpf")
    link.symlink_to(secret)
    os.mkfifo(pipe)
    folder.mkdir()
    try:
        for strange in (link, pipe, folder):
            register(unix, "r", strange.name, 1).error(400, "invalid_input")
    finally:
        link.unlink()
        pipe.unlink()
        folder.rmdir()


def test_a_region_is_within_its_file_and_a_tensor_within_its_region(unix: Api, file: Path) -> None:
    for size, offset in ((SAMPLE + 4097, 0), (1, SAMPLE + 4096), (2**63, 0), (1, 2**63), (0, 0)):
        register(unix, "r", file.name, size, offset).error(400, "invalid_input")
    register(unix, "r", file.name, 1, -1).error(400, "invalid_input")
    assert register(unix, "r", file.name, SAMPLE + 10).status == 200
    ask(unix, offset=11).error(400, "invalid_input")
    ask(unix, offset=2**64).error(400, "invalid_input")
    ask(unix, size=SAMPLE - 1).error(400, "invalid_input")
    ask(unix, size=2**62).error(400, "invalid_input")
    ask(unix, region="s").error(400, "invalid_input")
    ask(unix, **output(40, offset=SAMPLE)).error(400, "invalid_input")
    ask(unix, **output(9)).error(400, "invalid_input")


def test_a_tensor_is_in_one_place(unix: Api, file: Path, images: NDArray[np.uint8]) -> None:
    assert register(unix, "r", file.name).status == 200
    place = {"shared_memory_region": "r", "shared_memory_byte_size": SAMPLE}
    given = {"name": "input", "datatype": "UINT8", "shape": [1, 32, 32, 3], "parameters": place}
    head = {"inputs": [{**given, "data": images[0].ravel().tolist()}]}
    unix.as_json(head, INFER).error(400, "invalid_input")


def test_a_region_that_shrinks_or_vanishes_is_refused_and_the_daemon_lives(
    unix: Api, file: Path, daemon: Daemon, images: NDArray[np.uint8]
) -> None:
    assert register(unix, "r", file.name).status == 200
    os.truncate(file, SAMPLE + 8)
    assert ask(unix).status == 200
    ask(unix, **output(40)).error(400, "invalid_input")
    os.truncate(file, SAMPLE // 2)
    ask(unix).error(400, "invalid_input")
    os.truncate(file, 0)
    ask(unix, **output(40)).error(400, "invalid_input")
    assert file.stat().st_size == 0
    os.truncate(file, SAMPLE + 4096)
    file.unlink()
    assert ask(unix, **output(40)).status == 200
    assert daemon.process.poll() is None


def test_a_region_that_shrinks_all_the_time_never_ends_the_daemon(
    unix: Api, file: Path, daemon: Daemon
) -> None:
    assert register(unix, "r", file.name).status == 200
    is_over = threading.Event()

    def shake() -> None:
        while not is_over.is_set():
            os.truncate(file, 0)
            os.truncate(file, SAMPLE + 4096)

    shaking = threading.Thread(target=shake)
    shaking.start()
    try:
        statuses = {ask(unix, **output(40)).status for _ in range(200)}
    finally:
        is_over.set()
        shaking.join()
    assert statuses <= {200, 400}
    assert daemon.process.poll() is None


def test_a_region_that_is_unregistered_in_use_is_used_to_the_end(
    launcher: Launcher, gate: Any, file: Path, metric: Any, until: Any, images: NDArray[np.uint8]
) -> None:
    daemon = launcher.start({"policies": gate.policies})
    assert daemon.unix_url is not None
    unix = Api(daemon.unix_url)
    assert register(unix, "r", file.name).status == 200
    file.write_bytes(images[0].tobytes() + bytes(4096))
    gate.close()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask(unix, **output(40))))
    asking.start()
    until(lambda: metric(daemon.api, "delen_jobs") == 1, "it is under way")
    assert unix.post("/v2/systemsharedmemory/region/r/unregister").status == 200
    assert unix.get(STATUS).json() == []
    gate.open()
    asking.join()
    assert answers[0].status == 200
    assert any(file.read_bytes()[SAMPLE : SAMPLE + 40])
    until(lambda: file not in _open_files(daemon), "the file is closed")
    launcher.stop(daemon)


def _open_files(daemon: Daemon) -> set[Path]:
    found = set()
    for each in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(each.readlink())
    return found


def test_regions_are_limited(unix: Api, file: Path) -> None:
    registered = [register(unix, f"r{index}", file.name, 1).status for index in range(70)]
    assert registered.count(200) == 64
    assert {*registered} == {200, 503}
    register(unix, "x" * 256, file.name, 1).error(400, "invalid_input")


def as_user(user: int, code: str, **values: Any) -> Any:
    """What ``code`` prints as JSON in a process of ``user``."""
    modules = "encodings.idna, http.client, json, os, socket, urllib.error, urllib.request"
    script = f"import {modules}\nos.setgid({user}); os.setuid({user})\n{code}"
    variables = {name: str(value) for name, value in values.items()}
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


REQUEST = """
def send(method, path, body=""):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.environ["SOCKET"])
        s.sendall(f"{method} {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
                  f"Content-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
        head, _, rest = b"".join(iter(lambda: s.recv(65536), b"")).partition(b"\\r\\n\\r\\n")
        return int(head.split()[1]), json.loads(rest or b"null")
"""


@pytest.fixture
def open_socket(daemon: Daemon) -> Iterator[str]:
    """The daemon's Unix socket, within everybody's reach."""
    assert daemon.unix_url is not None
    path = Path(daemon.unix_url.removeprefix("unix://"))
    short = Path("/tmp") / f"delen-test-{secrets.token_hex(4)}.sock"
    os.link(path, short)
    mode = path.stat().st_mode
    path.chmod(0o777)
    yield str(short)
    path.chmod(mode)
    short.unlink()


@needs_root
def test_a_region_of_another_user_is_out_of_reach(unix: Api, file: Path, open_socket: str) -> None:
    """Neither by its file, nor by the name that its owner gave it."""
    file.chmod(0o600)
    assert register(unix, "mine", file.name).status == 200
    code = f"""{REQUEST}
register = lambda name: send("POST", f"/v2/systemsharedmemory/region/{{name}}/register",
                             json.dumps({{"key": os.environ["KEY"], "byte_size": 1}}))
place = {{"shared_memory_region": "mine", "shared_memory_byte_size": {SAMPLE}}}
given = {{"name": "input", "datatype": "UINT8", "shape": [1, 32, 32, 3], "parameters": place}}
print(json.dumps([register("theirs"), send("GET", "{STATUS}"),
                  send("POST", "{INFER}", json.dumps({{"inputs": [given]}})),
                  send("POST", "/v2/systemsharedmemory/unregister")]))"""
    taken, listed, used, forgotten = as_user(NOBODY, code, SOCKET=open_socket, KEY=file.name)
    assert (taken[0], taken[1]["code"]) == (403, "forbidden")
    assert listed == [200, []]
    assert (used[0], used[1]["code"]) == (400, "invalid_input")
    assert forgotten[0] == 200
    assert [each["name"] for each in unix.get(STATUS).json()] == ["mine"]


@needs_root
def test_a_file_of_another_user_is_refused_to_root_too(unix: Api, file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)
    register(unix, "r", file.name).error(403, "forbidden")


@needs_root
def test_a_user_registers_its_own_file(file: Path, open_socket: str) -> None:
    os.chown(file, NOBODY, NOBODY)
    code = f"""{REQUEST}
print(json.dumps([send("POST", "/v2/systemsharedmemory/region/own/register",
                       json.dumps({{"key": os.environ["KEY"], "byte_size": 100}})),
                  send("GET", "{STATUS}"), send("POST", "/v2/systemsharedmemory/unregister")]))"""
    registered, listed, _ = as_user(NOBODY, code, SOCKET=open_socket, KEY=file.name)
    assert registered[0] == 200
    assert [each["name"] for each in listed[1]] == ["own"]


@pytest.fixture(scope="module")
def over_tcp(launcher: Launcher) -> Iterator[Daemon]:
    """A daemon that offers shared memory over TCP and gRPC."""
    daemon = launcher.start({"server": {"grpc_port": 0, "shared_memory": True}})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, over_tcp: Daemon) -> Iterator[tuple[Any, Any]]:
    """Triton's module and client."""
    assert over_tcp.grpc_url is not None
    module: Any = triton_http if request.param == "http" else triton_grpc
    url = over_tcp.url if request.param == "http" else over_tcp.grpc_url
    with module.InferenceServerClient(url.partition("://")[2]) as client:
        yield module, client


def test_tritons_clients_send_and_receive_over_shared_memory(
    client: tuple[Any, Any], images: NDArray[np.uint8]
) -> None:
    module, server = client
    key = f"/delen-test-{secrets.token_hex(4)}"
    handle = shm.create_shared_memory_region("both", key, SAMPLE + 40)
    try:
        shm.set_shared_memory_region(handle, [images[:1]])
        server.register_system_shared_memory("both", key, SAMPLE + 40)
        listed = server.get_system_shared_memory_status()
        assert "both" in str(listed)
        given = module.InferInput("input", [1, 32, 32, 3], "UINT8")
        given.set_shared_memory("both", SAMPLE)
        wanted = module.InferRequestedOutput("logits")
        wanted.set_shared_memory("both", 40, SAMPLE)
        server.infer(MODEL, [given], outputs=[wanted])
        logits = shm.get_contents_as_numpy(handle, np.float32, [1, 10], SAMPLE)
        inline = module.InferInput("input", [1, 32, 32, 3], "UINT8")
        inline.set_data_from_numpy(images[:1])
        plain = server.infer(MODEL, [inline]).as_numpy("logits")
        assert logits == pytest.approx(plain, abs=1e-3)
        with pytest.raises(InferenceServerException):
            server.register_system_shared_memory("both", key, SAMPLE)
        with pytest.raises(InferenceServerException):
            server.register_system_shared_memory("large", key, 10**9)
        server.unregister_system_shared_memory("both")
        with pytest.raises(InferenceServerException):
            server.infer(MODEL, [given], outputs=[wanted])
        server.unregister_system_shared_memory()
    finally:
        shm.destroy_shared_memory_region(handle)


@needs_root
def test_tcp_knows_the_user_of_a_client_too(over_tcp: Daemon, file: Path) -> None:
    code = """
asked = urllib.request.Request(os.environ["URL"] + "/v2/systemsharedmemory/region/r/register",
                               json.dumps({"key": os.environ["KEY"], "byte_size": 1}).encode())
try:
    print(urllib.request.urlopen(asked).status)
except urllib.error.HTTPError as error:
    print(error.code)"""
    assert as_user(NOBODY, code, URL=over_tcp.url, KEY=file.name) == 403
    os.chown(file, NOBODY, NOBODY)
    assert as_user(NOBODY, code, URL=over_tcp.url, KEY=file.name) == 200
    assert over_tcp.api.get(STATUS).json() == []
