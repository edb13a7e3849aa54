"""A real graph that raises on some inputs: whoever sent one fails alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import BackendError
from delen.profile.cost_model import CostModel
from policies.dispatch.published.edf import Edf
from tests.builders.engine import PATIENCE, Recorder, build_model, build_runtime

onnx = pytest.importorskip("onnx", reason="bundles are made with onnx: delen[test]")
pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

SEGMENT_SECONDS = 100.0
BRIGHTEST = 200
"""A pixel above it is beyond the table in which the graph looks it up."""


def look_up_pixels(files: dict[str, bytes]) -> None:
    """Let the first segment gather the brightest pixel from a table of zeros, and add the number to
    its confidence."""
    helper, tensor = onnx.helper, onnx.TensorProto
    model = onnx.load_from_string(files["segment0.onnx"])
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["sure" if name == "confidence" else name for name in node.output]
    graph.node.extend(
        [
            helper.make_node("Cast", ["flat"], ["pixels"], to=tensor.INT64),
            helper.make_node("ReduceMax", ["pixels", "axes"], ["brightest"], keepdims=0),
            helper.make_node("Gather", ["table", "brightest"], ["nothing"]),
            helper.make_node("Add", ["sure", "nothing"], ["confidence"]),
        ]
    )
    table = onnx.numpy_helper.from_array(np.zeros(BRIGHTEST + 1, np.float32), "table")
    graph.initializer.append(table)
    files["segment0.onnx"] = model.SerializeToString()


@pytest.fixture
def observer() -> Recorder:
    return Recorder()


@pytest.fixture
def runtime(
    write_bundle: Callable[..., Path],
    make_costs: Callable[..., CostModel],
    tmp_path: Path,
    observer: Recorder,
) -> Iterator[Runtime]:
    bundle = write_bundle(tmp_path / "tiny", edit=look_up_pixels)

    def load(path: Path) -> Model:
        return build_model(path, make_costs(*[SEGMENT_SECONDS] * 3, energy=(0.04,) * 3))

    runtime = build_runtime([bundle], load, observer=observer, dispatch=Edf())
    yield runtime
    runtime.close()


def images(count: int) -> list[NDArray[np.uint8]]:
    drawn = np.random.default_rng(3).integers(0, BRIGHTEST, (count, 4, 4, 1), dtype=np.uint8)
    return list(drawn)


def submit_together(runtime: Runtime, samples: list[NDArray[np.uint8]]) -> list[Job]:
    """A request for each; none runs before all wait."""
    with runtime._executor.lock:
        return [runtime.submit("tiny", sample, Bounds(), Options()) for sample in samples]


def answers(jobs: list[Job]) -> list[Result | None]:
    """None for those that the engine failed."""
    found: list[Result | None] = []
    for job in jobs:
        error = job.future.exception(PATIENCE)
        assert error is None or isinstance(error, BackendError), error
        found.append(None if error else job.future.result())
    return found


@pytest.mark.parametrize("bad", [{0}, {3}, {7}, {1, 2, 6}, set(range(1, 8))])
def test_the_others_of_its_batch_are_answered(
    runtime: Runtime, observer: Recorder, bad: set[int]
) -> None:
    samples = images(8)
    alone = answers([runtime.submit("tiny", each, Bounds(), Options()) for each in samples])
    for index in bad:
        samples[index][0, 0, 0] = BRIGHTEST + 1
    together = answers(submit_together(runtime, samples))
    assert {index for index, result in enumerate(together) if result is None} == bad
    for result, other in zip(together, alone, strict=True):
        if result is not None and other is not None:
            assert (result.index, result.exit) == (other.index, other.exit)
            assert result.probability == pytest.approx(other.probability, abs=1e-5)
            assert result.receipt.energy.value is not None
    assert ("tiny", 0) in observer.segment_failures
    assert not runtime.health.failing(0.0)


def test_the_error_names_the_segment(runtime: Runtime) -> None:
    sample = np.full((4, 4, 1), BRIGHTEST + 1, np.uint8)
    with pytest.raises(BackendError, match="segment 0"):
        runtime.submit("tiny", sample, Bounds(), Options()).future.result(PATIENCE)


def test_what_ran_again_is_charged_to_those_that_it_ran_for(
    runtime: Runtime, observer: Recorder
) -> None:
    samples = images(4)
    samples[2][0, 0, 0] = BRIGHTEST + 1
    jobs = submit_together(runtime, samples)
    failed = jobs[2].share
    answers(jobs)
    runtime.close()  # once what ran is reported
    assert observer.works
    assert all(failed not in work.shares for work in observer.works)
