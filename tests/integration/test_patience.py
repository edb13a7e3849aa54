"""A bundle whose criterion is patience: the engine counts how many exits in a row agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.bundle.confidence import confidences
from delen.core.bounds import Bounds, Options
from delen.engine.runtime import Runtime
from delen.profile.cost_model import CostModel
from tests.builders.engine import PATIENCE, build_model, build_runtime

ort = pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

EXITS = 5


@pytest.fixture(scope="module")
def patient(write_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patient") / "tiny"
    return write_bundle(folder, exits=EXITS, criterion="patience")


@pytest.fixture
def runtime(patient: Path, make_costs: Callable[..., CostModel]) -> Iterator[Runtime]:
    costs = make_costs(*[100.0] * EXITS, growth=0.0)
    runtime = build_runtime([patient], lambda path: build_model(path, costs))
    yield runtime
    runtime.close()


def run_chain(bundle: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits ``[exits, n, classes]``, straight from the graphs."""
    feed: dict[str, Any] = {"input": images}
    logits = []
    for exit in range(EXITS):
        outputs = ort.InferenceSession(bundle / f"segment{exit}.onnx").run(None, feed)
        logits.append(outputs[0])
        feed = {"features": outputs[-1], "rows": np.arange(len(images))}
    return np.stack(logits)


@pytest.mark.parametrize("floor", [0.7, 0.8])
def test_jobs_end_where_enough_exits_in_a_row_agree(
    runtime: Runtime, patient: Path, floor: float
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (24, 4, 4, 1), dtype=np.uint8)
    logits = run_chain(patient, images)
    powers = np.exp((logits - logits.max(axis=2, keepdims=True)) / 1.25)
    probabilities = powers / powers.sum(axis=2, keepdims=True)
    answers = logits.argmax(axis=2)
    table = Calibration(
        np.ascontiguousarray(confidences("patience", probabilities).T),
        (answers == answers[-1]).T,
        answers.T.astype(np.int32),
    )
    bounds = Bounds(min_accuracy=floor)
    model = runtime.store.ready("tiny")
    plan = model.planner.plan(bounds, model.costs)
    assert plan.threshold is not None
    expected = table.exits_taken(plan.threshold, plan.exit)
    assert len(set(expected.tolist())) > 1
    jobs = [runtime.submit("tiny", image, bounds, Options()) for image in images]
    for index, job in enumerate(jobs):
        result = job.future.result(PATIENCE)
        exit = expected[index]
        assert (result.exit, result.index) == (exit, answers[exit, index])
        assert result.reason == ("confident" if exit < plan.exit else "final")
        assert result.probability == pytest.approx(probabilities[exit, index].max(), abs=1e-5)
