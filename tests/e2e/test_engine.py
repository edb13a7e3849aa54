"""``delen.Engine``: the same answers in process, with no daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import delen

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon

Image8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def engine(daemon: Daemon, state: Path) -> Iterator[delen.Engine]:
    """On the profile that the daemon has measured."""
    with delen.Engine(state=state) as engine:
        yield engine


def test_engine_and_daemon_agree(engine: delen.Engine, api: Api, images: Image8) -> None:
    for image in images:
        here, there = engine.infer(image), api.raw(image).json()
        assert here.model == there["model"]
        assert here.exit == there["exit"]
        assert here.reason == there["reason"]
        assert here.index == there["predictions"][0]["index"]
        assert here.probability == pytest.approx(there["predictions"][0]["probability"], abs=1e-5)


def test_every_kind_of_input(
    engine: delen.Engine, image: Image8, png: Callable[[Image8], bytes], tmp_path: Path
) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(png(image))
    expected = engine.infer(image).probabilities
    for x in (Image.fromarray(image), file, png(image)):
        assert engine.infer(x).probabilities == pytest.approx(expected, abs=1e-6)
    results = engine.infer(np.stack([image, image]))
    assert [len(result.probabilities) for result in results] == [10, 10]


@pytest.mark.parametrize("labels", [[1], 5, None, {5: 1}, {"a": 1.5}])
def test_labels_are_of_requests(engine: delen.Engine, labels: Any) -> None:
    with pytest.raises(delen.InvalidInput, match="label") as caught:
        engine.feedback(labels)
    assert caught.value.field == "labels"


@pytest.mark.parametrize("wrong", [5, [1], b"x", True, ""])
@pytest.mark.parametrize("field", ["bundle", "state"])
def test_a_folder_has_a_path(field: str, wrong: Any) -> None:
    with pytest.raises(delen.InvalidInput, match=f"{field} is .*; it must be the path of a folder"):
        delen.Engine(**{field: wrong})


def test_bounds_and_options(engine: delen.Engine, image: Image8) -> None:
    result = engine.infer(image, min_accuracy=0.8, top_k=2, stream="front", priority=1)
    assert result.receipt.accuracy.guarantee == 0.95
    assert len(result.predictions) == 2
    assert result.stream == "front"
    with pytest.raises(delen.InfeasibleBound) as caught:
        engine.infer(image, max_energy=1e-9)
    assert engine.infer(image, max_energy=caught.value.nearest.max_energy).exit == 0
    effort = engine.infer(image, max_latency=1e-9, on_infeasible="best_effort")
    assert effort.receipt.met is False
    plan = engine.plan(min_accuracy=0.85)
    assert plan.feasible
    assert plan.accuracy >= 0.85
    assert not engine.plan(max_latency=1e-9).feasible


def test_wrong_input_is_refused(engine: delen.Engine, image: Image8) -> None:
    for wrong in (image[:5], image.astype(np.float32), np.array([{}], object), b"xyz", None):
        with pytest.raises(delen.InvalidInput):
            engine.infer(wrong)
    assert engine.infer(image).label


def test_an_engine_that_is_closed_says_so(state: Path) -> None:
    with delen.Engine(state=state) as engine:
        pass
    with pytest.raises(delen.DelenError, match="closed"):
        engine.infer(np.zeros((32, 32, 3), np.uint8))


def test_threads_share_an_engine(engine: delen.Engine, images: Image8) -> None:
    expected = [engine.infer(image).index for image in images]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda image: engine.infer(image).index, list(images) * 4))
    assert got == expected * 4


def test_an_engine_takes_the_folder_of_a_bundle(state: Path, bundles: Path, image: Image8) -> None:
    with delen.Engine(bundles / "second", state=state, power="none") as engine:
        result = engine.infer(image)
    assert result.model == "second"
    assert result.receipt.energy.kind == "unknown"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(delen.BundleError, match=str(folder)):
            delen.Engine(folder)


def test_a_damaged_bundle_is_refused_by_file(
    make_bundle: Callable[..., Path], tmp_path: Path, state: Path
) -> None:
    folder = make_bundle(tmp_path / "damaged")
    graph = folder / "segment2.onnx"
    contents = bytearray(graph.read_bytes())
    contents[1000] ^= 1
    graph.write_bytes(contents)
    with pytest.raises(delen.BundleError, match=r"segment2\.onnx"):
        delen.Engine(folder, state=state)


def test_wrong_arguments_are_refused(state: Path) -> None:
    for arguments in ({"backend": "abacus"}, {"power": "sun"}, {"threads": 0}):
        with pytest.raises(delen.DelenError):
            delen.Engine(state=state, **arguments)
