"""``python -m benchmarks transports``: an input of 3 KB to 9.6 MB by each way into the daemon.

The network is a product of 16 numbers, so an answer's time is that of the way: JSON, octet-stream
and binary tensors of the Open Inference Protocol over TCP; octet-stream and system shared memory
over the Unix socket; and two clients that do all an app wants, tritonclient over TCP and the SDK,
which takes its own way. All others send a request that was made before, and leave the answer
unread. One connection; the daemon on one core, the client on another. The same engine in this
process is what each of them is compared with. A region of shared memory is registered once, and its
input is written anew for each request.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tritonclient import http

from benchmarks.common import Figure, report
from benchmarks.peers.load import Address, HttpClient, Request, ask
from benchmarks.peers.process import Cores, on_core, running
from benchmarks.state import wait_measured
from delen import Client
from delen.bundle.calibration import Calibration
from delen.bundle.confidence import confidences
from delen.bundle.manifest import ExitSpec, FileEntry, InputSpec, Manifest
from delen.daemon.in_process import Engine

SIZES = {"3 KB": 768, "150 KB": 37_632, "600 KB": 150_528, "9.6 MB": 2_408_448}
"""Numbers of four bytes."""
CLAIMED = "600 KB"
ROUNDS = 5
SECONDS = 0.5
Call: TypeAlias = Callable[[], object]
_CLASSES, _SEEN = 4, 16
_JSON = ("Content-Type: application/json",)
_OCTETS = ("Content-Type: application/octet-stream",)


def graph(numbers: int) -> bytes:
    """A segment with its exit that looks at the first ``_SEEN`` of its input's ``numbers``."""
    constants: Mapping[str, NDArray[Any]] = {
        "first": np.arange(_SEEN, dtype=np.int64),
        "weights": np.random.default_rng(0).normal(size=(_SEEN, _CLASSES)).astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["input", "first"], ["seen"], axis=1),
        helper.make_node("MatMul", ["seen", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities", "axes"], ["confidence"], keepdims=0),
    ]
    shapes: Mapping[str, list[Any]] = {
        "input": ["batch", numbers],
        "logits": ["batch", _CLASSES],
        "confidence": ["batch"],
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    outputs = [values["logits"], values["confidence"]]
    made = helper.make_graph(nodes, "transport", [values["input"]], outputs, initial)
    opsets = [helper.make_opsetid("", 18)]
    contents: bytes = helper.make_model(
        made, opset_imports=opsets, ir_version=8
    ).SerializeToString()
    return contents


def write_bundle(folder: Path, name: str, numbers: int) -> None:
    """A bundle of ``graph(numbers)``, with a calibration that says nothing."""
    drawn = np.random.default_rng(1).dirichlet(np.ones(_CLASSES), (1, 1000)).astype(np.float32)
    answers = drawn.argmax(axis=2)
    seen = confidences("max_probability", drawn).T
    table = Calibration(seen, np.ones_like(answers.T, bool), answers.T.astype(np.int32))
    files = {"segment0.onnx": graph(numbers), "calibration.npz": table.to_npz()}
    manifest = Manifest(
        name=name,
        version="1",
        description="a network that costs nothing",
        runtime="onnx",
        precision="fp32",
        criterion="max_probability",
        input=InputSpec("float32", (numbers,)),
        classes=_CLASSES,
        labels=None,
        max_batch=1,
        exits=(
            ExitSpec(
                graph="segment0.onnx",
                features=None,
                macs=_SEEN * _CLASSES,
                temperature=1.0,
                test_accuracy=None,
            ),
        ),
        calibration="calibration.npz",
        files={
            file: FileEntry(hashlib.sha256(contents).hexdigest(), len(contents))
            for file, contents in files.items()
        },
        provenance={"made_by": "benchmarks"},
    )
    folder.mkdir(parents=True)
    for file, contents in files.items():
        (folder / file).write_bytes(contents)
    (folder / "manifest.json").write_text(manifest.to_json())


def as_json(model: str, values: NDArray[np.float32]) -> Request:
    body = msgspec.json.encode({"input": values.tolist()})
    return Request(f"/v1/models/{model}/infer", body, _JSON)


def as_octets(model: str, values: NDArray[np.float32]) -> Request:
    return Request(f"/v1/models/{model}/infer", values.tobytes(), _OCTETS)


def as_oip(model: str, values: NDArray[np.float32], **parameters: Any) -> Request:
    """Binary tensors, or with ``parameters`` those of a region instead of the data."""
    data = b"" if parameters else values.tobytes()
    given = {
        "name": "input",
        "shape": [1, values.size],
        "datatype": "FP32",
        "parameters": parameters or {"binary_data_size": len(data)},
    }
    document = {"inputs": [given], "parameters": {"binary_data_output": True}}
    head = msgspec.json.encode(document)
    length = f"Inference-Header-Content-Length: {len(head)}"
    return Request(f"/v2/models/{model}/infer", head + data, (*_OCTETS, length))


@contextmanager
def region(address: Address, name: str, size: int) -> Iterator[mmap.mmap]:
    """Shared memory that the daemon knows as ``name``."""
    path = Path(f"/dev/shm/delen-benchmark-{os.getpid()}-{name}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
        document = msgspec.json.encode({"key": f"/{path.name}", "offset": 0, "byte_size": size})
        place = f"/v2/systemsharedmemory/region/{name}/register"
        answer = ask(address, Request(place, document, _JSON).wire())
        if answer.status != 200:
            raise RuntimeError(answer.body.decode())
        with mmap.mmap(descriptor, size) as memory:
            yield memory
    finally:
        os.close(descriptor)
        path.unlink()


def median_ms(call: Callable[[], object]) -> float:
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while not taken or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


@contextmanager
def asking(address: Address) -> Iterator[Callable[[bytes], None]]:
    """Posts over one connection. RuntimeError unless the status is 200."""
    client = HttpClient(address)

    def post(wire: bytes) -> None:
        answer = client.ask(wire)
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.body[:300].decode(errors='replace')}")

    try:
        yield post
    finally:
        client.socket.close()


@contextmanager
def triton(address: tuple[str, int], model: str, values: NDArray[np.float32]) -> Iterator[Call]:
    """The protocol's own client, from the array to the logits."""
    with http.InferenceServerClient("{}:{}".format(*address)) as client:

        def infer() -> object:
            given = http.InferInput("input", [1, values.size], "FP32")
            given.set_data_from_numpy(values[None])
            wanted = [http.InferRequestedOutput("logits")]
            return client.infer(model, [given], outputs=wanted).as_numpy("logits")

        yield infer


def measure(size: str, tcp: tuple[str, int], socket: str, bundle: Path) -> dict[str, list[float]]:
    """Milliseconds of each way beyond the engine's in this process, a value a round."""
    values = (np.random.default_rng(2).integers(-99, 99, SIZES[size]) / 2).astype(np.float32)
    data, name = values.tobytes(), size.replace(" ", "-").replace(".", "-")
    json, octets = as_json(name, values).wire(), as_octets(name, values).wire()
    oip = as_oip(name, values).wire()
    place = {"shared_memory_region": name, "shared_memory_byte_size": len(data)}
    added: dict[str, list[float]] = {}
    with (
        asking(tcp) as over_tcp,
        asking(socket) as over_unix,
        region(socket, name, len(data)) as memory,
        triton(tcp, name, values) as by_triton,
        Client(f"unix://{socket}", model=name) as client,
        Engine(bundle / name, power="model", state=bundle) as engine,
    ):
        shared = as_oip(name, values, **place).wire()

        def over_memory() -> None:
            memory[:] = data
            over_unix(shared)

        ways: dict[str, Call] = {
            "JSON, TCP": lambda: over_tcp(json),
            "octet-stream, TCP": lambda: over_tcp(octets),
            "binary OIP, TCP": lambda: over_tcp(oip),
            "octet-stream, Unix": lambda: over_unix(octets),
            "shared memory, Unix": over_memory,
            "tritonclient, TCP": by_triton,
            f"SDK, {client.transport}": lambda: client.infer(values),
        }
        for way in ways.values():
            way()
        for _ in range(ROUNDS):
            alone = median_ms(lambda: engine.infer(values))
            for title, way in ways.items():
                added.setdefault(title, []).append(median_ms(way) - alone)
    return added


def claims(size: str, added: Mapping[str, Sequence[float]]) -> list[Figure]:
    """What is claimed of the SDK at ``CLAIMED``, and what else was measured."""
    by_sdk = next(way for way in added if way.startswith("SDK"))
    ratios = {
        way: tuple(a / b for a, b in zip(added[f"{way}, TCP"], added[by_sdk], strict=True))
        for way in ("binary OIP", "tritonclient")
    }
    most, least = (0.25, 5.0) if size == CLAIMED else (None, None)
    return [
        *(
            Figure(f"{size}: {way}", tuple(values), "ms", most if way == by_sdk else None)
            for way, values in added.items()
        ),
        Figure(f"{size}: binary OIP over SDK", ratios["binary OIP"], "x"),
        Figure(f"{size}: tritonclient over SDK", ratios["tritonclient"], "x", least, False),
    ]


def main() -> list[Figure]:
    cores = Cores.of_this_process()
    names = {size: size.replace(" ", "-").replace(".", "-") for size in SIZES}
    with tempfile.TemporaryDirectory() as folder, on_core(cores.load):
        bundles, socket = Path(folder) / "bundles", f"{folder}/socket"
        for size, numbers in SIZES.items():
            write_bundle(bundles / names[size], names[size], numbers)
        variables = {
            "DELEN_SERVER__PORT": "{port}",
            "DELEN_SERVER__SOCKET": socket,
            "DELEN_SERVER__GRPC_PORT": "-1",
            "DELEN_DEVICE__THREADS": "1",
            "DELEN_POWER__SOURCE": "model",
            "DELEN_STATE__PATH": folder,
            "DELEN_MODELS__PATH": str(bundles),
            "DELEN_MODELS__LOAD": ",".join(names.values()),
            "DELEN_MODELS__DEFAULT": names["3 KB"],
        }
        first = as_octets(names["3 KB"], np.zeros(SIZES["3 KB"], np.float32)).wire()
        command = [str(Path(sys.executable).with_name("delen-daemon"))]

        def answers(address: Address) -> bool:
            return ask(address, first).status == 200

        figures = []
        with running(command, variables, Path(folder), cores.server, answers) as server:
            wait_measured("http://{}:{}".format(*server.address))
            for size in SIZES:
                figures += claims(size, measure(size, server.address, socket, bundles))
    return report("What each way into the daemon adds at p50 to the engine in process", figures)


if __name__ == "__main__":
    main()
