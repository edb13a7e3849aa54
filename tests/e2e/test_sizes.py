"""A daemon with a model of several input sizes, as clients see it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import delen
from tests.builders.daemon import Api, Daemon

Image8 = NDArray[np.uint8]
MODEL = "/v1/models/cifar10-resnet"


def scaled(image: Image8, side: int) -> Image8:
    return np.asarray(Image.fromarray(image).resize((side, side)), np.uint8)


@pytest.mark.parametrize("side", [20, 24, 32])
def test_an_input_of_any_size_is_answered_at_its_own(api: Api, image: Image8, side: int) -> None:
    answer = api.raw(scaled(image, side)).json()
    assert answer["size"] == answer["receipt"]["size"] == [side, side]


def test_a_tight_cap_is_kept_at_a_smaller_size_and_the_refusal_below_it_says_so(
    api: Api, image: Image8
) -> None:
    pareto = api.plan()["pareto"]
    smallest, largest = pareto[0], pareto[10]
    assert (smallest["size"], largest["size"], largest["exit"]) == ([20, 20], [32, 32], 0)
    if smallest["energy_mj"] >= largest["energy_mj"]:
        pytest.skip("by the profile that was measured, the smallest size costs no less")
    cap = (smallest["energy_mj"] + largest["energy_mj"]) / 2
    answer = api.raw(image, max_energy_mj=cap).json()
    assert answer["size"] in ([20, 20], [24, 24])
    refused = api.raw(image, max_energy_mj=0.5 * smallest["energy_mj"])
    nearest = refused.error(422, "infeasible_bound")["nearest"]["max_energy_mj"]
    assert nearest < largest["energy_mj"]
    assert api.raw(image, max_energy_mj=nearest).status == 200


def test_an_encoded_image_becomes_the_largest_size_that_it_fills(api: Api, image: Image8) -> None:
    for side, size in ((100, 32), (32, 32), (30, 24), (21, 20), (8, 20)):
        buffer = BytesIO()
        Image.fromarray(scaled(image, side)).save(buffer, "PNG")
        answer = api.post("/v1/infer", body=buffer.getvalue(), content_type="image/png").json()
        assert answer["size"] == [size, size], side


def test_a_size_that_the_model_does_not_have_is_refused_by_name(api: Api, image: Image8) -> None:
    buffer = BytesIO()
    np.save(buffer, scaled(image, 28))
    refused = api.post("/v1/infer", body=buffer.getvalue(), content_type="application/x-npy")
    error = refused.error(400, "invalid_input")
    assert error["field"] == "input"
    for shape in ("[32, 32, 3]", "[24, 24, 3]", "[20, 20, 3]"):
        assert shape in error["error"]


def test_a_batch_of_a_smaller_size_runs_at_it(daemon: Daemon, image: Image8) -> None:
    with delen.Client(daemon.url) as client:
        results = client.infer(np.stack([scaled(image, 24)] * 3))
        assert {result.size for result in results} == {(24, 24)}
        plan = client.plan()
        assert plan.size == (32, 32)
        assert {point.size for point in plan.points} == {(20, 20), (24, 24), (32, 32)}


def test_the_open_inference_protocol_takes_every_size_and_names_it(api: Api, image: Image8) -> None:
    def infer(side: int) -> Any:
        small = scaled(image, side)
        tensor = {
            "name": "input",
            "datatype": "UINT8",
            "shape": [1, *small.shape],
            "data": small.ravel().tolist(),
        }
        return api.as_json({"inputs": [tensor]}, "/v2/models/cifar10-resnet/infer")

    assert infer(24).json()["parameters"]["size"] == "24x24"
    assert infer(28).status == 400
    shape = api.get("/v2/models/cifar10-resnet").json()["inputs"][0]["shape"]
    assert shape == [-1, -1, -1, 3]
