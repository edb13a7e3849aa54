"""What bounds do: to a plan, to an answer, and to the receipt that tells of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Launcher

Image8 = NDArray[np.uint8]
GENEROUS_MS = 20_000
TINY = 1e-4


def _infer(api: Api, image: Image8, **asked: Any) -> dict[str, Any]:
    answer = api.raw(image, **asked)
    assert answer.status == 200, answer.body
    document: dict[str, Any] = answer.json()
    return document


def test_clients_that_ask_again_at_once_are_answered_deep_while_their_deadlines_are_far(
    api: Api, image: Image8
) -> None:
    def ask(_: int) -> set[int]:
        return {_infer(api, image, max_latency_ms=GENEROUS_MS)["exit"] for _ in range(10)}

    with ThreadPoolExecutor(4) as clients:
        assert set().union(*clients.map(ask, range(4))) == {4}


def test_a_generous_latency_buys_the_deepest_useful_exit(api: Api, image: Image8) -> None:
    answer = _infer(api, image, max_latency_ms=GENEROUS_MS)
    assert answer["exit"] == api.deepest_useful()
    assert answer["reason"] == ("final" if answer["exit"] == 4 else "planned_exit")
    assert answer["receipt"]["latency_ms"]["met"] is True
    assert answer["receipt"]["met"] is True


def test_without_bounds_an_easy_image_leaves_early(api: Api, image: Image8) -> None:
    answer = _infer(api, image)
    assert answer["reason"] == "confident"
    assert answer["exit"] < api.deepest_useful()


@pytest.mark.parametrize("bound", ["max_latency_ms", "max_energy_mj"])
def test_a_cap_below_the_first_exit_is_infeasible(api: Api, image: Image8, bound: str) -> None:
    error = api.raw(image, **{bound: TINY}).error(422, "infeasible_bound")
    assert bound.rsplit("_", 1)[0] in error["error"]
    assert set(error["nearest"]) == {"max_latency_ms", "min_accuracy", "max_energy_mj"}
    assert error["nearest"][bound] > TINY
    assert api.plan(**error["nearest"] and {bound: error["nearest"][bound]})["feasible"] is True


def test_an_accuracy_out_of_reach_names_the_highest_that_is_not(api: Api, image: Image8) -> None:
    error = api.raw(image, min_accuracy=0.999).error(422, "infeasible_bound")
    nearest = error["nearest"]["min_accuracy"]
    assert 0.5 < nearest < 0.999
    receipt = _infer(api, image, min_accuracy=nearest)["receipt"]
    assert receipt["accuracy"]["met"] is True


def test_a_retry_with_the_nearest_energy_is_answered_within_it(api: Api, image: Image8) -> None:
    nearest = api.raw(image, max_energy_mj=TINY).json()["nearest"]["max_energy_mj"]
    receipt = _infer(api, image, max_energy_mj=nearest)["receipt"]
    assert receipt["energy_mj"]["predicted"] <= nearest


def test_following_the_nearest_latency_leads_to_an_answer(
    api: Api, image: Image8, until: Callable[..., Any]
) -> None:
    """Where the machine is slow to start it at the very limit, it is to be tried again."""
    bound = TINY

    def follow() -> Any:
        nonlocal bound
        answer = api.raw(image, max_latency_ms=bound)
        if answer.status == 422:
            bound = answer.error(422, "infeasible_bound")["nearest"]["max_latency_ms"]
        elif answer.status != 200:
            assert answer.error(503, "overloaded")["retry_after_s"] >= 0
        return answer.status == 200 and answer.json()

    answer = until(follow, "the nearest feasible latency is accepted")
    assert bound > TINY, "what nobody can keep has been promised"
    latency = answer["receipt"]["latency_ms"]
    assert latency["bound"] == pytest.approx(bound)
    assert latency["predicted"] <= bound
    assert latency["met"] == (latency["value"] <= bound)


@pytest.mark.parametrize("bound", ["max_latency_ms", "max_energy_mj"])
def test_best_effort_answers_what_would_be_refused(api: Api, image: Image8, bound: str) -> None:
    answer = _infer(api, image, on_infeasible="best_effort", **{bound: TINY})
    name = bound.removeprefix("max_")
    assert answer["receipt"]["met"] is False
    assert answer["receipt"][name]["met"] is False
    assert answer["exit"] == 0


def test_best_effort_for_an_accuracy_out_of_reach_says_that_it_is_not_met(
    api: Api, image: Image8
) -> None:
    answer = _infer(api, image, min_accuracy=0.9999, on_infeasible="best_effort")
    accuracy = answer["receipt"]["accuracy"]
    assert (accuracy["met"], accuracy["guarantee"]) == (False, None)
    assert answer["receipt"]["met"] is False


@pytest.mark.parametrize("floor", [0.5, 0.7, 0.8])
def test_a_floor_is_guaranteed_on_the_receipt(api: Api, images: Image8, floor: float) -> None:
    for image in images[::8]:
        receipt = _infer(api, image, min_accuracy=floor)["receipt"]
        assert receipt["accuracy"]["bound"] == floor
        assert receipt["accuracy"]["guarantee"] == 0.95
        assert receipt["accuracy"]["met"] is True
        assert receipt["accuracy"]["overall"] >= floor


def test_a_lower_floor_never_costs_more(api: Api) -> None:
    plans = [api.plan(min_accuracy=floor) for floor in (0.6, 0.8, 0.88)]
    costs = [plan["expected_energy_mj"] for plan in plans]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_every_energy_bound_is_kept_by_the_prediction(api: Api, image: Image8) -> None:
    for point in [p for p in api.plan()["pareto"] if not p["dominated"]]:
        bound = 1.02 * point["energy_mj"]
        answer = _infer(api, image, max_energy_mj=bound)
        energy = answer["receipt"]["energy_mj"]
        assert energy["bound"] == pytest.approx(bound)
        assert energy["predicted"] <= bound
        planned = api.plan(max_energy_mj=bound)
        assert planned["feasible"]
        assert planned["accuracy"] >= point["accuracy"]


def test_all_bounds_together_are_kept(api: Api, image: Image8) -> None:
    asked = {"max_latency_ms": GENEROUS_MS, "min_accuracy": 0.8, "max_energy_mj": 1e6}
    receipt = _infer(api, image, **asked)["receipt"]
    assert receipt["met"] is True
    assert all(receipt[name]["met"] for name in ("latency_ms", "accuracy", "energy_mj"))


def test_a_floor_that_the_cap_forbids_is_refused_with_both_named(api: Api, image: Image8) -> None:
    first = api.plan()["pareto"][0]
    cap = 1.02 * first["energy_mj"]
    error = api.raw(image, max_energy_mj=cap, min_accuracy=0.88).error(422, "infeasible_bound")
    nearest = error["nearest"]
    assert nearest["max_energy_mj"] == pytest.approx(cap)
    assert nearest["min_accuracy"] < 0.88
    kept = {name: value for name, value in nearest.items() if value is not None}
    assert api.plan(**kept)["feasible"] is True
    assert api.raw(image, **kept).status == 200


def test_bounds_in_the_body_act_like_bounds_in_the_query(api: Api, image: Image8) -> None:
    body = {"input": image.tolist(), "max_latency_ms": TINY}
    assert api.as_json(body).error(422, "infeasible_bound")["nearest"]["max_latency_ms"] > TINY


def test_null_means_not_set(api: Api, image: Image8) -> None:
    body = {"input": image.tolist(), "max_latency_ms": None, "min_accuracy": None, "stream": None}
    answer = api.as_json(body)
    assert answer.status == 200
    assert answer.json()["receipt"]["latency_ms"]["bound"] is None


# --- plan


def test_a_plan_tells_what_bounds_buy(api: Api) -> None:
    plan = api.plan(min_accuracy=0.85)
    assert plan["feasible"] is True
    assert plan["problem"] is None
    assert plan["nearest"] is None
    assert plan["accuracy"] >= 0.85
    assert plan["guarantee"] == 0.95
    assert 0 <= plan["threshold"] <= 1
    assert plan["latency_ms"] > 0
    assert 0 < plan["expected_energy_mj"] <= plan["energy_mj"]


def test_the_pareto_table_lists_every_exit(api: Api) -> None:
    pareto = api.plan()["pareto"]
    assert [point["exit"] for point in pareto] == 3 * [0, 1, 2, 3, 4]
    for size in ([20, 20], [24, 24], [32, 32]):
        of_size = [point for point in pareto if point["size"] == size]
        assert [point["exit"] for point in of_size] == [0, 1, 2, 3, 4]
        for earlier, later in itertools.pairwise(of_size):
            assert earlier["latency_ms"] < later["latency_ms"]
            assert earlier["energy_mj"] < later["energy_mj"]
    for point in pareto:
        as_good = [
            other
            for other in pareto
            if other is not point
            and other["accuracy"] >= point["accuracy"]
            and other["latency_ms"] <= point["latency_ms"]
        ]
        assert point["dominated"] == bool(as_good)


def test_a_plan_takes_its_bounds_from_body_or_query(api: Api) -> None:
    in_query = api.post("/v1/plan", query={"min_accuracy": 0.8}).json()
    in_body = api.post(
        "/v1/models/cifar10-resnet/plan", body=json.dumps({"min_accuracy": 0.8}).encode()
    ).json()
    assert in_body["threshold"] == in_query["threshold"]
    assert in_body["accuracy"] == in_query["accuracy"]


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_latency_ms": TINY},
        {"min_accuracy": 0.9999},
        {"max_energy_mj": TINY},
        {"max_latency_ms": TINY, "min_accuracy": 0.9999},
        {"max_latency_ms": TINY, "min_accuracy": 0.9999, "max_energy_mj": TINY},
        {"max_latency_ms": GENEROUS_MS, "min_accuracy": 0.85, "max_energy_mj": TINY},
    ],
    ids=lambda bounds: "+".join(bounds),
)
def test_an_infeasible_plan_names_bounds_that_are_feasible(
    api: Api, bounds: dict[str, float]
) -> None:
    plan = api.plan(**bounds)
    assert plan["feasible"] is False
    assert plan["problem"]
    nearest = {name: value for name, value in plan["nearest"].items() if value is not None}
    assert set(nearest) >= set(bounds), "a bound that was asked for is missing from nearest"
    assert api.plan(**nearest)["feasible"] is True


def test_a_plan_has_no_options(api: Api) -> None:
    assert api.post("/v1/plan", query={"top_k": 3}).error(400, "unknown_field")["field"] == "top_k"


# --- settings


def test_no_power_source_makes_energy_unknown_and_its_bound_infeasible(
    launcher: Launcher, image: Image8
) -> None:
    daemon = launcher.start({"power": {"source": "none"}})
    api = daemon.api
    energy = _infer(api, image)["receipt"]["energy_mj"]
    assert (energy["kind"], energy["value"], energy["predicted"]) == ("unknown", None, None)
    assert (energy["source"], energy["scope"]) == (None, None)
    error = api.raw(image, max_energy_mj=1e6).error(422, "infeasible_bound")
    assert "no energy source" in error["error"]
    assert error["nearest"]["max_energy_mj"] is None
    power = api.get("/v1/power").json()
    assert (power["kind"], power["source"], power["watts"]) == ("unknown", None, None)
    assert api.plan()["energy_mj"] is None
    effort = _infer(api, image, max_energy_mj=1e6, on_infeasible="best_effort")
    assert effort["receipt"]["energy_mj"]["met"] is None
    launcher.stop(daemon)


def test_the_stated_watts_price_the_energy(launcher: Launcher, api: Api) -> None:
    daemon = launcher.start({"power": {"source": "model", "watts_per_core": 40.0}})
    usual, dear = api.plan()["pareto"], daemon.api.plan()["pareto"]
    for a, b in zip(usual, dear, strict=True):
        assert b["energy_mj"] == pytest.approx(10 * a["energy_mj"], rel=1e-6)
    launcher.stop(daemon)


def test_guarantee_tolerance_and_quantile_change_plans(launcher: Launcher) -> None:
    """Daemons that have served nothing yet plan by the profile alone."""
    changed = launcher.start({"policies": {"guarantee": 0.999, "tolerance": 0.1, "quantile": 0.5}})
    usual = launcher.start({"policies": {"quantile": 0.99}})
    strict, plain = (daemon.api.plan(min_accuracy=0.87) for daemon in (changed, usual))
    assert strict["guarantee"] == 0.999
    assert strict["threshold"] > plain["threshold"]
    tolerant, plain = changed.api.plan(), usual.api.plan()
    assert tolerant["threshold"] < plain["threshold"]
    for low, high in zip(tolerant["pareto"], plain["pareto"], strict=True):
        assert low["latency_ms"] < high["latency_ms"]
    launcher.stop(changed)
    launcher.stop(usual)
