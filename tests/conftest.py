"""A real bundle of a tiny network, and profiles and costs with figures chosen by a test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from delen.bundle import (
    ExitSpec,
    FileEntry,
    ImagePreprocessing,
    InputSpec,
    Manifest,
)
from delen.calibration import Calibration
from delen.costs import Costs
from delen.profile import Device, Profile, Quantiles, SegmentCost

settings.register_profile("delen", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("delen")

PIXELS = 16
TEMPERATURE = 1.25


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The public traces and profiles, where they are."""
    given = os.environ.get("DELEN_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public data are not at {folder}; DELEN_TEST_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def write_bundle() -> Callable[..., Path]:
    """Writes a bundle of a linear network over uint8 images [4, 4, 1] into a folder.

    Its features are the centred pixels, turned by an orthogonal matrix in every segment; each
    exit sees the true linear classes through less noise than the one before. ``edit`` may change
    the graphs (by file name) before they are hashed.
    """
    onnx = pytest.importorskip("onnx", reason="bundles are made with onnx: delen[test]")
    from onnx import TensorProto, helper, numpy_helper

    def graph(
        segment: int, turn: NDArray[np.float32], head: NDArray[np.float32], is_last: bool
    ) -> Any:
        classes = head.shape[1]
        nodes = []
        if segment == 0:
            source, shape, dtype = "images", ["batch", 4, 4, 1], TensorProto.UINT8
            nodes += [
                helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
                helper.make_node("Flatten", ["float"], ["flat"], axis=1),
                helper.make_node("Sub", ["flat", "half"], ["centred"]),
                helper.make_node("Mul", ["centred", "scale"], ["x"]),
            ]
        else:
            source, shape, dtype = "features", ["batch", PIXELS], TensorProto.FLOAT
            nodes.append(helper.make_node("Identity", ["features"], ["x"]))
        nodes += [
            helper.make_node("MatMul", ["x", "turn"], ["turned"]),
            helper.make_node("MatMul", ["turned", "head"], ["logits"]),
            helper.make_node("Mul", ["logits", "cooling"], ["cooled"]),
            helper.make_node("Softmax", ["cooled"], ["probabilities"], axis=1),
            helper.make_node("ReduceMax", ["probabilities"], ["confidence"], axes=[1], keepdims=0),
        ]
        outputs = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
            helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["batch"]),
        ]
        if not is_last:
            nodes.append(helper.make_node("Identity", ["turned"], ["features_out"]))
            outputs.append(
                helper.make_tensor_value_info("features_out", TensorProto.FLOAT, ["batch", PIXELS])
            )
        constants = {
            "turn": turn,
            "head": head,
            "half": np.float32(127.5),
            "scale": np.float32(1 / 64),
            "cooling": np.float32(1 / TEMPERATURE),
        }
        used = {name for node in nodes for name in node.input}
        return helper.make_model(
            helper.make_graph(
                nodes,
                f"tiny_{segment}",
                [helper.make_tensor_value_info(source, dtype, shape)],
                outputs,
                [
                    numpy_helper.from_array(np.asarray(array), name)
                    for name, array in constants.items()
                    if name in used
                ],
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )

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
        edit: Callable[[dict[str, bytes]], None] = lambda files: None,
    ) -> Path:
        rng = np.random.default_rng(seed)
        true = rng.normal(size=(PIXELS, classes)).astype(np.float32)
        images = rng.integers(0, 256, (calibration_samples, PIXELS)).astype(np.float32)
        centred = (images - 127.5) / 64
        answers = (centred @ true).argmax(axis=1)
        turned = np.eye(PIXELS, dtype=np.float32)
        files: dict[str, bytes] = {}
        confidence, correct = [], []
        for exit in range(exits):
            turn, _ = np.linalg.qr(rng.normal(size=(PIXELS, PIXELS)))
            turned = (turned @ turn).astype(np.float32)
            noise = 1.2 * (exits - 1 - exit) / exits + 0.05
            seen = true + noise * rng.normal(size=true.shape).astype(np.float32)
            head = (turned.T @ seen).astype(np.float32)
            model = graph(exit, turn.astype(np.float32), head, exit == exits - 1)
            onnx.checker.check_model(model)
            files[f"exit{exit}.onnx"] = model.SerializeToString()
            powers = np.exp((centred @ turned @ head) / TEMPERATURE)
            probabilities = powers / powers.sum(axis=1, keepdims=True)
            confidence.append(probabilities.max(axis=1))
            correct.append(probabilities.argmax(axis=1) == answers)
        table = Calibration(
            np.clip(np.stack(confidence, axis=1), 0, 1).astype(np.float32),
            np.stack(correct, axis=1),
        )
        files["calibration.npz"] = table.to_npz()
        edit(files)
        manifest = Manifest(
            name=name,
            version="1",
            description="a linear network that tests made",
            input=InputSpec("uint8", (4, 4, 1), ImagePreprocessing("L", "bilinear")),
            classes=classes,
            labels=tuple(f"class {k}" for k in range(classes)) if labels else None,
            max_batch=max_batch,
            exits=tuple(
                ExitSpec(
                    graph=f"exit{exit}.onnx",
                    features=None if exit == exits - 1 else (PIXELS,),
                    macs=1000 * (exit + 1),
                    temperature=TEMPERATURE,
                    test_accuracy=None,
                )
                for exit in range(exits)
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
    ) -> Profile:
        def cost(median: float, batch: int, joules: float | None) -> SegmentCost:
            time = median * (1 + (batch - 1) * growth)
            return SegmentCost(
                Quantiles(*(time * (1 + k * spread) for k in range(4))),
                time,
                None if joules is None else joules * batch,
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
        )

    return make


@pytest.fixture(scope="session")
def make_costs(make_profile: Callable[..., Profile]) -> Callable[..., Costs]:
    """Costs over ``make_profile``. With ``watts`` a busy second costs so many joules; without,
    energy is what the profile says, and unknown where it says nothing."""

    def make(*medians: float, watts: float | None = None, level: float = 0.99, **how: Any) -> Costs:
        def planned(cost: SegmentCost) -> float | None:
            return cost.energy if watts is None else watts * cost.processor

        def used(cost: SegmentCost, processor: float) -> float | None:
            return planned(cost)

        known = watts is not None or "energy" in how
        account = SimpleNamespace(
            kind="estimated" if known else "unknown",
            source="test" if known else None,
            scope="processor" if known else None,
            planned=planned,
            used=used,
        )
        return Costs(make_profile(*medians, **how), account, level)

    return make


@pytest.fixture(scope="session")
def make_calibration() -> Callable[..., Calibration]:
    """Makes the table of a network with the given accuracies, from a seed.

    A sample's difficulty is uniform and an exit is right up to its accuracy; its confidence is
    high where the sample is easy for it, with noise.
    """

    def make(*accuracies: float, samples: int = 4000, seed: int = 0) -> Calibration:
        rng = np.random.default_rng(seed)
        difficulty = (np.arange(samples) + 0.5) / samples
        right = difficulty[:, None] <= np.asarray(accuracies)
        ease = np.asarray(accuracies) - difficulty[:, None]
        noisy = ease + rng.normal(scale=0.1, size=right.shape)
        confidence = 1 / (1 + np.exp(-6 * noisy))
        return Calibration(confidence.astype(np.float32), right)

    return make
