"""A real bundle of a tiny network, and profiles and costs with figures chosen by a test."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.bundle.confidence import confidences
from delen.bundle.manifest import ExitSpec, FileEntry, ImagePreprocessing, InputSpec, Manifest
from delen.core.failures import failure_counts
from delen.profile.cost_model import CostModel
from delen.profile.energy_account import Spent
from delen.profile.profile import Device, HostCosts, Metering, Profile, Quantiles, SegmentCost

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore it, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Some hundred processes import the same modules: compiled once, where Python may keep that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("delen", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("delen")

PIXELS = 16
TEMPERATURE = 1.25
IMAGES = InputSpec("uint8", (4, 4, 1), ImagePreprocessing("L", "bilinear"))
SCALES = {"uint8": (127.5, 1 / 64), "int16": (0.0, 1 / 16384)}
"""What is subtracted from the tiny network's inputs, and what they are then multiplied with."""


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The public traces and profiles, where they are."""
    given = os.environ.get("DELEN_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public data are not at {folder}; DELEN_TEST_DATA names their folder")
    return folder


@pytest.fixture
def failed() -> Callable[[str], int]:
    """How many failures a place counted since the test began."""
    before = failure_counts()
    return lambda where: failure_counts()[where] - before.get(where, 0)


@pytest.fixture(scope="session")
def closed_url() -> Iterator[str]:
    """An address of this machine at which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@dataclass(frozen=True, slots=True)
class TinySegment:
    """What a segment of the tiny network multiplies with: ``turn`` [16, 16], ``head`` [16, k]."""

    turn: NDArray[np.float32]
    head: NDArray[np.float32]
    is_last: bool


def onnx_segment(index: int, segment: TinySegment, input: InputSpec) -> bytes:
    onnx = pytest.importorskip("onnx", reason="bundles are made with onnx: delen[test]")
    from onnx import TensorProto, helper, numpy_helper

    classes = segment.head.shape[1]
    middle, scale = SCALES[input.dtype]
    if index == 0:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(input.dtype))
        inputs = [helper.make_tensor_value_info("input", dtype, ["batch", *input.shape])]
        nodes = [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"], axis=1),
            helper.make_node("Sub", ["flat", "middle"], ["centred"]),
            helper.make_node("Mul", ["centred", "scale"], ["x"]),
        ]
    else:
        inputs = [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["stored", PIXELS]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch"]),
        ]
        nodes = [helper.make_node("Gather", ["features", "rows"], ["x"], axis=0)]
    nodes += [
        helper.make_node("MatMul", ["x", "turn"], ["turned"]),
        helper.make_node("MatMul", ["turned", "head"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["cooled"]),
        helper.make_node("Softmax", ["cooled"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities", "axes"], ["confidence"], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["batch"]),
    ]
    if not segment.is_last:
        nodes.append(helper.make_node("Identity", ["turned"], ["features_out"]))
        outputs.append(
            helper.make_tensor_value_info("features_out", TensorProto.FLOAT, ["batch", PIXELS])
        )
    constants = {
        "turn": segment.turn,
        "head": segment.head,
        "middle": np.float32(middle),
        "scale": np.float32(scale),
        "temperature": np.float32(TEMPERATURE),
        "axes": np.array([1], np.int64),
    }
    used = {name for node in nodes for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            f"tiny-1-segment{index}",
            inputs,
            outputs,
            [
                numpy_helper.from_array(np.asarray(array), name)
                for name, array in constants.items()
                if name in used
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    contents: bytes = model.SerializeToString()
    return contents


def torch_segment(index: int, segment: TinySegment, input: InputSpec) -> bytes:
    """The same as an exported program."""
    torch = pytest.importorskip("torch", reason="exported programs need torch: delen[train]")
    middle, scale = SCALES[input.dtype]

    class Answers(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turn", torch.from_numpy(segment.turn))
            self.register_buffer("head", torch.from_numpy(segment.head))
            self.register_buffer("temperature", torch.tensor(TEMPERATURE))

        def forward(self, x: Any) -> Any:
            turned = x @ self.turn
            logits = turned @ self.head
            confidence = torch.softmax(logits / self.temperature, 1).amax(1)
            return (logits, confidence) if segment.is_last else (logits, confidence, turned)

    class First(Answers):
        def forward(self, input: Any) -> Any:
            return super().forward((input.float().flatten(1) - middle) * scale)

    class DeferredResponse(Answers):
        def forward(self, features: Any, rows: Any) -> Any:
            return super().forward(features.index_select(0, rows))

    batch, stored = torch.export.Dim("batch", min=1), torch.export.Dim("stored", min=1)
    shapes: dict[str, Any]
    if index == 0:
        module = First()
        sample = (torch.zeros((2, *input.shape), dtype=getattr(torch, input.dtype)),)
        shapes = {"input": {0: batch}}
    else:
        module = DeferredResponse()
        sample = (torch.zeros(3, PIXELS), torch.zeros(2, dtype=torch.int64))
        shapes = {"features": {0: stored}, "rows": {0: batch}}
    buffer = BytesIO()
    torch.export.save(torch.export.export(module.eval(), sample, dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


MAKERS = {"onnx": (onnx_segment, ".onnx"), "torch": (torch_segment, ".pt2")}


@pytest.fixture(scope="session")
def write_bundle() -> Callable[..., Path]:
    """Writes a bundle of a linear network over 16 numbers into a folder.

    By default they are uint8 images [4, 4, 1]; ``input`` may be any other spec of 16 numbers of
    uint8 or int16. The features are the numbers centred and scaled, turned by an orthogonal
    matrix in every segment; each exit sees the true linear classes through less noise than the
    one before. ``runtime`` is onnx or torch, ``criterion`` max_probability or patience. ``edit``
    may change the files (by name) before they are hashed.
    """

    def write(
        folder: Path,
        *,
        name: str = "tiny",
        exits: int = 3,
        classes: int = 4,
        labels: bool = True,
        max_batch: int = 8,
        calibration_samples: int = 3000,
        seed: int = 0,
        runtime: str = "onnx",
        criterion: str = "max_probability",
        input: InputSpec = IMAGES,
        edit: Callable[[dict[str, bytes]], None] = lambda files: None,
    ) -> Path:
        rng = np.random.default_rng(seed)
        true = rng.normal(size=(PIXELS, classes)).astype(np.float32)
        limits = np.iinfo(input.dtype)
        drawn = rng.integers(limits.min, limits.max + 1, (calibration_samples, PIXELS))
        middle, scale = SCALES[input.dtype]
        centred = (drawn.astype(np.float32) - np.float32(middle)) * np.float32(scale)
        labelled = (centred @ true).argmax(axis=1)
        turned = np.eye(PIXELS, dtype=np.float32)
        make_segment, suffix = MAKERS[runtime]
        graphs = [f"segment{exit}{suffix}" for exit in range(exits)]
        files: dict[str, bytes] = {}
        probabilities = np.empty((exits, calibration_samples, classes), np.float32)
        for exit, graph in enumerate(graphs):
            turn, _ = np.linalg.qr(rng.normal(size=(PIXELS, PIXELS)))
            turned = (turned @ turn).astype(np.float32)
            noise = 1.2 * (exits - 1 - exit) / exits + 0.05
            seen = true + noise * rng.normal(size=true.shape).astype(np.float32)
            head = (turned.T @ seen).astype(np.float32)
            segment = TinySegment(turn.astype(np.float32), head, exit == exits - 1)
            files[graph] = make_segment(exit, segment, input)
            powers = np.exp((centred @ turned @ head) / TEMPERATURE)
            probabilities[exit] = powers / powers.sum(axis=1, keepdims=True)
        answers = probabilities.argmax(axis=2)
        table = Calibration(
            confidences(criterion, probabilities).T,
            (answers == labelled).T,
            answers.T.astype(np.int32),
        )
        files["calibration.npz"] = table.to_npz()
        edit(files)
        manifest = Manifest(
            name=name,
            version="1",
            description="a linear network that tests made",
            runtime=runtime,
            precision="fp32",
            criterion=criterion,
            input=input,
            classes=classes,
            labels=tuple(f"class {k}" for k in range(classes)) if labels else None,
            max_batch=max_batch,
            exits=tuple(
                ExitSpec(
                    graph=graph,
                    features=None if exit == exits - 1 else (PIXELS,),
                    macs=1000 * (exit + 1),
                    temperature=TEMPERATURE,
                    test_accuracy=None,
                )
                for exit, graph in enumerate(graphs)
            ),
            calibration="calibration.npz",
            files={
                file: FileEntry(hashlib.sha256(contents).hexdigest(), len(contents))
                for file, contents in files.items()
            },
            provenance={"made_by": "tests"},
        )
        folder.mkdir(parents=True, exist_ok=True)
        for file, contents in files.items():
            (folder / file).write_bytes(contents)
        (folder / "manifest.json").write_text(manifest.to_json())
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_bundle(
    write_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three exits, four classes, batches of up to eight. Not to be written to."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_torch_bundle(
    write_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same network as exported programs of torch. Not to be written to."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", runtime="torch")


@pytest.fixture(scope="session", params=["onnx", "torch"])
def either_bundle(request: pytest.FixtureRequest) -> Path:
    """``tiny_bundle``, then ``tiny_torch_bundle``: what uses it runs on both runtimes."""
    name = "tiny_bundle" if request.param == "onnx" else "tiny_torch_bundle"
    folder: Path = request.getfixturevalue(name)
    return folder


@pytest.fixture(scope="session")
def make_profile() -> Callable[..., Profile]:
    """Makes a profile from the median seconds of each segment at batch size 1.

    A batch of n takes ``1 + (n - 1) * growth`` times as long; p90, p95 and p99 lie ``spread``,
    twice and three times ``spread`` above the median. One core is busy all that time.
    """

    def make(
        *medians: float,
        spread: float = 0.0,
        growth: float = 0.5,
        batches: tuple[int, ...] = (1, 2, 4, 8),
        answer: float = 0.0,
        energy: tuple[float, ...] | None = None,
        bundle: str = "0" * 64,
        model: str = "tiny",
        device: Device | None = None,
        corun: tuple[float, ...] | None = None,
        host: HostCosts | None = None,
    ) -> Profile:
        def cost(median: float, batch: int, joules: float | None) -> SegmentCost:
            time = median * (1 + (batch - 1) * growth)
            return SegmentCost(
                Quantiles(*(time * (1 + k * spread) for k in range(4))),
                time,
                None if joules is None else joules * batch,
                None if joules is None else joules * batch + 3.0 * time,
                None if joules is None else (0.99 * joules * batch, 1.01 * joules * batch),
            )

        energies: tuple[float | None, ...] = energy or (None,) * len(medians)
        return Profile(
            model=model,
            bundle=bundle,
            device=device or Device("test board", 2, "onnxruntime", "cpu", 1, "default"),
            created="2026-01-01T00:00:00+00:00",
            quick=False,
            answer=Quantiles(answer, answer, answer, answer),
            segments=tuple(
                {batch: cost(median, batch, joules) for batch in batches}
                for median, joules in zip(medians, energies, strict=True)
            ),
            energy=energy and Metering("test", "module_input", 3.0, 5, 10.0),
            interference=corun,
            host=host,
        )

    return make


@pytest.fixture(scope="session")
def make_costs(make_profile: Callable[..., Profile]) -> Callable[..., CostModel]:
    """Costs over ``make_profile``. With ``watts`` a busy second costs so many joules; without,
    energy is what the profile says, and unknown where it says nothing."""

    def make(
        *medians: float, watts: float | None = None, level: float = 0.99, lanes: int = 1, **how: Any
    ) -> CostModel:
        def predict(cost: SegmentCost, spent: Spent | None = None) -> float | None:
            return cost.energy if watts is None else watts * cost.processor

        known = watts is not None or "energy" in how
        account = SimpleNamespace(
            kind="estimated" if known else "unknown",
            source="test" if known else None,
            scope="processor" if known else None,
            revision=0,
            predict=predict,
            factor=lambda segment: 1.0,
        )
        return CostModel(make_profile(*medians, **how), account, level, lanes)

    return make


@pytest.fixture(scope="session")
def make_calibration() -> Callable[..., Calibration]:
    """Makes the table of a network with the given accuracies, from a seed.

    A sample's difficulty is uniform and an exit is right up to its accuracy; its confidence is
    high where the sample is easy for it, with noise. Exits that are wrong all give other classes.
    In ``group_size`` samples of one group, whose difficulties lie close together, seven in ten are
    as difficult as the group.
    """

    def make(
        *accuracies: float, samples: int = 4000, seed: int = 0, group_size: int | None = None
    ) -> Calibration:
        rng = np.random.default_rng(seed)
        difficulty, groups = (np.arange(samples) + 0.5) / samples, None
        if group_size is not None:
            groups = (np.arange(samples) // group_size).astype(np.int32)
            own = rng.random(samples) < 0.3
            difficulty = np.where(own, rng.random(samples), rng.random(samples)[groups])
        right = difficulty[:, None] <= np.asarray(accuracies)
        ease = np.asarray(accuracies) - difficulty[:, None]
        noisy = ease + rng.normal(scale=0.1, size=right.shape)
        confidence = 1 / (1 + np.exp(-6 * noisy))
        answers = np.where(right, 0, 1 + np.arange(len(accuracies)))
        return Calibration(confidence.astype(np.float32), right, answers.astype(np.int32), groups)

    return make
