"""A daemon that runs two batches at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

Image8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def two_lanes(launcher: Launcher, bundles: Path) -> Iterator[Daemon]:
    daemon = launcher.start(
        {
            "device": {"instances": 2, "threads": 1},
            "models": {"path": str(bundles), "load": ["cifar10-resnet", "second"]},
        }
    )
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def test_two_models_under_load_answer_as_one_at_a_time(
    two_lanes: Daemon, api: Api, images: Image8, metric: Any
) -> None:
    models = ("cifar10-resnet", "second")

    def ask(number: int) -> tuple[int, int]:
        answer = two_lanes.api.raw(
            images[number % len(images)], f"/v1/models/{models[number % 2]}/infer", min_accuracy=0.9
        )
        assert answer.status == 200, answer.body
        told = answer.json()
        assert told["model"] == models[number % 2]
        return number, told["predictions"][0]["index"] if told["reason"] != "latency" else -1

    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(ask, range(60)))
    expected = [
        api.raw(image, min_accuracy=0.9).json()["predictions"][0]["index"] for image in images
    ]
    assert [index for _, index in answers] == [expected[n % len(images)] for n, _ in answers]
    assert metric(two_lanes.api, "delen_lanes") == 2
    assert metric(two_lanes.api, "delen_lanes_busy") == 0
    assert metric(two_lanes.api, "delen_corun_slowdown", model="second", others="0") == 1
    assert metric(two_lanes.api, "delen_corun_slowdown", model="second", others="1") >= 1


def test_a_model_can_be_unloaded_and_loaded_again(two_lanes: Daemon, image: Image8) -> None:
    assert two_lanes.api.post("/v1/models/second/unload").status == 200
    assert two_lanes.api.raw(image).status == 200
    assert two_lanes.api.post("/v1/models/second/load").status == 200
    assert two_lanes.api.raw(image, "/v1/models/second/infer").status == 200


def test_one_lane_is_the_default(api: Api, metric: Any) -> None:
    assert metric(api, "delen_lanes") == 1
