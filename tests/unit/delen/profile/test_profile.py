from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.errors import ProfileError
from delen.profile.profile import LEVELS, Device, Disturbance, HostCosts, Profile, Quantiles
from delen.profile.reader import load_profile

MakeProfile = Callable[..., Profile]
STEPS = Quantiles(1.0, 2.0, 3.0, 5.0)


@pytest.mark.parametrize(
    ("level", "seconds"),
    [(0.5, 1.0), (0.7, 1.5), (0.9, 2.0), (0.925, 2.5), (0.95, 3.0), (0.97, 4.0), (0.99, 5.0)],
)
def test_quantiles_are_linear_between_those_known(level: float, seconds: float) -> None:
    assert STEPS.at(level) == pytest.approx(seconds)


@pytest.mark.parametrize("level", [0.0, 0.49, 0.991, 1.0])
def test_a_level_that_was_not_measured_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        STEPS.at(level)


@given(st.floats(LEVELS[0], LEVELS[-1]), st.floats(LEVELS[0], LEVELS[-1]))
def test_quantiles_never_fall(one: float, other: float) -> None:
    assert STEPS.at(min(one, other)) <= STEPS.at(max(one, other))


def test_costs_are_linear_between_batch_sizes(make_profile: MakeProfile) -> None:
    profile = make_profile(0.010, growth=0.5, spread=0.2, batches=(1, 4, 8), energy=(0.002,))
    cost = profile.cost(0, 6)
    low, high = profile.cost(0, 4), profile.cost(0, 8)
    for level in LEVELS:
        middle = (low.latency.at(level) + high.latency.at(level)) / 2
        assert cost.latency.at(level) == pytest.approx(middle)
    assert cost.processor == pytest.approx((low.processor + high.processor) / 2)
    assert cost.energy == pytest.approx(0.012)
    assert profile.cost(0, 4) is profile.segments[0][4]


def test_energy_between_sizes_is_unknown_where_one_side_is(make_profile: MakeProfile) -> None:
    profile = make_profile(0.010, batches=(1, 4), energy=(0.002,))
    known, unknown = profile.segments[0][1], replace(profile.segments[0][4], energy=None)
    assert replace(profile, segments=({1: known, 4: unknown},)).cost(0, 2).energy is None


def test_energies_are_linear_between_the_sizes_that_have_them(make_profile: MakeProfile) -> None:
    profile = make_profile(0.010, batches=(1, 2, 4, 8), energy=(0.002,))
    costs = profile.segments[0]
    sparse = {
        batch: cost
        if batch in (1, 4)
        else replace(cost, energy=None, gross=None, energy_interval=None)
        for batch, cost in costs.items()
    }
    profile = replace(profile, segments=(sparse,))
    for batch in (2, 3):
        cost = profile.cost(0, batch)
        gross = (costs[1].gross or 0) + (batch - 1) / 3 * ((costs[4].gross or 0) - 0.032)
        assert cost.energy == pytest.approx(0.002 * batch)
        assert cost.gross == pytest.approx(gross)
        assert cost.energy_interval == pytest.approx((0.00198 * batch, 0.00202 * batch))
    assert profile.cost(0, 2).latency == costs[2].latency
    for batch in (6, 8):
        assert profile.cost(0, batch).energy is None
        assert profile.cost(0, batch).gross is None


def test_a_batch_beyond_the_largest_is_refused(make_profile: MakeProfile) -> None:
    with pytest.raises(ProfileError, match="batch 9 is outside the profiled 1 to 8"):
        make_profile(0.01).cost(0, 9)
    with pytest.raises(ProfileError):
        make_profile(0.01).cost(0, 0)


def test_a_profile_comes_back_from_its_file(tmp_path: Path, make_profile: MakeProfile) -> None:
    profile = make_profile(0.0125, 0.025, spread=0.25, answer=0.00025, energy=(0.5, 0.25))
    file = tmp_path / "profile.json"
    file.write_text(profile.to_json())
    back = load_profile(file)
    assert back.device == profile.device
    assert back.to_json() == profile.to_json()
    assert asdict(back.answer) == pytest.approx(asdict(profile.answer))
    assert back.energy == profile.energy
    cost = back.cost(1, 4)
    assert (cost.energy, cost.gross) == pytest.approx((1.0, 1.0 + 3.0 * cost.processor))
    assert cost.energy_interval == pytest.approx((0.99, 1.01))


def test_a_profile_without_energies_comes_back_so(
    tmp_path: Path, make_profile: MakeProfile
) -> None:
    file = tmp_path / "profile.json"
    file.write_text(make_profile(0.01).to_json())
    assert json.loads(file.read_text())["energy"] is None
    back = load_profile(file)
    assert back.energy is None
    assert back.cost(0, 1).energy is None


def test_energies_without_a_spread_come_back(tmp_path: Path, make_profile: MakeProfile) -> None:
    profile = make_profile(0.01, batches=(1,), energy=(0.5,))
    bare = replace(profile.segments[0][1], gross=None, energy_interval=None)
    file = tmp_path / "profile.json"
    file.write_text(replace(profile, segments=({1: bare},)).to_json())
    cost = load_profile(file).cost(0, 1)
    assert (cost.energy, cost.gross, cost.energy_interval) == (0.5, None, None)


@pytest.mark.parametrize("energy_mj", [None, 12.5])
def test_a_file_of_the_first_schema_has_latencies_and_no_energies(
    tmp_path: Path, make_profile: MakeProfile, energy_mj: float | None
) -> None:
    document = json.loads(make_profile(0.01, batches=(1,)).to_json())
    document["schema"] = 1
    del document["energy"]
    batch_one(document)["energy_mj"] = energy_mj
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(document))
    profile = load_profile(file)
    assert profile.cost(0, 1).latency.p50 == pytest.approx(0.01)
    assert profile.cost(0, 1).energy is None
    assert profile.energy is None


def test_a_profile_file_speaks_milliseconds_and_millijoules(make_profile: MakeProfile) -> None:
    document = json.loads(make_profile(0.010, energy=(0.002,), answer=0.001).to_json())
    batch = document["segments"][0]["batches"]["1"]
    assert batch["latency_ms"]["p50"] == pytest.approx(10)
    assert batch["processor_ms"] == pytest.approx(10)
    energies = {"marginal": 2, "gross": 32, "low": 1.98, "high": 2.02}
    assert batch["energy_mj"] == pytest.approx(energies)
    assert document["energy"] == {
        "source": "test",
        "scope": "module_input",
        "idle_w": 3.0,
        "blocks": 5,
        "block_s": 10.0,
    }
    assert document["answer_ms"]["p99"] == pytest.approx(1)


HOST = HostCosts(0.0001, 0.0002, 0.00003, 0.00004, Quantiles(1.1, 1.2, 1.3, 1.5))


@pytest.mark.parametrize("host", [HOST, replace(HOST, stretch=None), None])
def test_what_serving_takes_comes_back(
    tmp_path: Path, make_profile: MakeProfile, host: HostCosts | None
) -> None:
    file = tmp_path / "profile.json"
    file.write_text(replace(make_profile(0.01), host=host).to_json())
    back = load_profile(file).host
    assert (back is None) == (host is None)
    if back is not None and host is not None:
        assert back.batch == pytest.approx(host.batch)
        assert back.answer == pytest.approx(host.answer)
        assert back.stretch == host.stretch


def test_segments_are_stretched_while_serving(make_profile: MakeProfile) -> None:
    profile = make_profile(0.01, spread=0.5)
    assert profile.as_served() is profile
    served = replace(profile, host=HOST).as_served()
    assert served.cost(0, 1).latency.p50 == pytest.approx(0.011)
    assert served.cost(0, 1).latency.p99 == pytest.approx(0.015)
    assert served.cost(0, 2).latency.p50 == pytest.approx(1.1 * profile.cost(0, 2).latency.p50)
    assert served.cost(0, 1).processor == pytest.approx(1.1 * profile.cost(0, 1).processor)
    assert served.answer == profile.answer
    assert served.as_served() is served  # what is served is not stretched twice


def with_host(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "request_ms": 0.1, "batch_ms": 0.1, "task_ms": 0.1, "answer_ms": 0.1, "stretch": None
    }  # fmt: skip
    return {**document, **changes}


def batch_one(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["segments"][0]["batches"]["1"]
    return found


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda d: d.update(format="other"), "not a delen profile"),
        (lambda d: d.pop("format"), "not a delen profile"),
        (lambda d: d.update(host=3), "'host' must be an object"),
        (lambda d: d.update(host=with_host(batch_ms=-0.1)), "host must have nothing below 0"),
        (lambda d: d.update(host=with_host(colour=1)), "unknown key 'colour'"),
        (lambda d: d.update(host={"request_ms": 0.1}), "lacks 'batch_ms'"),
        (
            lambda d: d.update(
                host=with_host(stretch={"p50": 2.0, "p90": 1.0, "p95": 3.0, "p99": 3.0})
            ),
            "host.stretch must be above 0 and ascend",
        ),
        (lambda d: d.update(schema=3), "schema 3 is not 1 or 2"),
        (lambda d: d.update(schema=1), "'energy_mj' must be a number"),
        (lambda d: d.update(colour="red"), "unknown key 'colour'"),
        (lambda d: d["device"].update(colour="red"), "unknown key 'colour'"),
        (lambda d: d["device"].pop("cores"), "lacks 'cores'"),
        (lambda d: d["device"].update(cores=True), "'cores' must be a whole number"),
        (lambda d: d.update(quick="no"), "'quick' must be true or false"),
        (lambda d: d.update(segments=[]), "segments is empty"),
        (lambda d: d["segments"].append({}), "lacks 'batches'"),
        (lambda d: d["segments"].append({"batches": {}}), "batch size 1"),
        (lambda d: d["segments"][0]["batches"].pop("1"), "batch size 1"),
        (lambda d: d["segments"][0]["batches"].update({"0": {}}), "batch sizes"),
        (lambda d: d["segments"][0]["batches"].update({"-2": {}}), "batch sizes"),
        (lambda d: d["segments"][0]["batches"].update(two={}), "batch sizes"),
        (lambda d: batch_one(d)["latency_ms"].update(p50=99), "ascend"),
        (lambda d: batch_one(d)["latency_ms"].update(p50=-1), "at least 0"),
        (lambda d: batch_one(d)["latency_ms"].update(p50=0), "latency above 0"),
        (lambda d: batch_one(d)["latency_ms"].update(p99=float("nan")), "finite"),
        (lambda d: batch_one(d)["latency_ms"].update(p99=float("inf")), "finite"),
        (lambda d: batch_one(d)["latency_ms"].update(p100=1), "unknown key 'p100'"),
        (lambda d: batch_one(d)["latency_ms"].pop("p95"), "lacks 'p95'"),
        (lambda d: batch_one(d).update(processor_ms=-1), "below 0"),
        (lambda d: batch_one(d).update(energy_mj=5), "'energy_mj' must be an object"),
        (lambda d: batch_one(d).update(energy_mj=None), "every segment at batch size 1"),
        (lambda d: batch_one(d)["energy_mj"].update(marginal=-1), "below 0"),
        (lambda d: batch_one(d)["energy_mj"].update(gross=-1), "below 0"),
        (lambda d: batch_one(d)["energy_mj"].update(low=9), "low <= marginal"),
        (lambda d: batch_one(d)["energy_mj"].update(high=0), "marginal <= high"),
        (lambda d: batch_one(d)["energy_mj"].update(low=-1), "0 <= low"),
        (lambda d: batch_one(d)["energy_mj"].update(watts=5), "unknown key 'watts'"),
        (lambda d: batch_one(d)["energy_mj"].pop("marginal"), "lacks 'marginal'"),
        (lambda d: d.update(energy=None), "does not say whose"),
        (lambda d: d["energy"].update(blocks=0), "above 0"),
        (lambda d: d["energy"].update(block_s=-1), "above 0"),
        (lambda d: d["energy"].update(idle_w="3"), "'idle_w' must be a number"),
        (lambda d: d["energy"].pop("scope"), "lacks 'scope'"),
        (lambda d: d["energy"].update(colour="red"), "unknown key 'colour'"),
        (lambda d: batch_one(d).update(watts=5), "unknown key 'watts'"),
    ],
)
def test_a_damaged_profile_is_refused_with_the_file_and_the_reason(
    tmp_path: Path,
    make_profile: MakeProfile,
    how: Callable[[dict[str, Any]], None],
    reason: str,
) -> None:
    document = json.loads(make_profile(0.01, spread=0.1, energy=(0.002,)).to_json())
    how(document)
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ProfileError) as caught:
        load_profile(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("contents", [b"", b"{", b"\xff", b"[1]", b"[" * 100_000])
def test_what_is_no_profile_is_refused(tmp_path: Path, contents: bytes) -> None:
    file = tmp_path / "profile.json"
    file.write_bytes(contents)
    with pytest.raises(ProfileError, match=str(file)):
        load_profile(file)
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "none.json")


def test_a_device_has_a_plain_file_name() -> None:
    device = Device("Intel(R) Xeon(R) @ 2.80GHz/x", 2, "onnxruntime", "cpu", 1, "../15W")
    assert "/" not in device.key
    assert " " not in device.key
    assert device.key.startswith("Intel_R__Xeon_R____2.80GHz_x-2c-cpu-1t-")


def test_interference_is_read_back_and_checked(
    make_profile: Callable[..., Profile], tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    made = make_profile(0.01, corun=(1.0, 1.5))
    file.write_text(made.to_json())
    assert load_profile(file) == made
    assert "corun" not in make_profile(0.01).to_json()
    for wrong, named in (
        ([], "begin with 1"),
        ([1.5], "begin with 1"),
        ([1.0, 0.5], "0.5"),
        ([1.0, "x"], "'x'"),
        (1.5, "a list"),
    ):
        file.write_text(json.dumps(json.loads(made.to_json()) | {"corun": wrong}))
        with pytest.raises(ProfileError, match=named):
            load_profile(file)


def test_what_else_ran_is_read_back_and_checked(
    make_profile: Callable[..., Profile], tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    unknown = make_profile(0.01)
    assert not unknown.busy and "measured" not in unknown.to_json()
    made = replace(unknown, measured=Disturbance(busy=True, others=0.5))
    assert made.busy
    file.write_text(made.to_json())
    assert load_profile(file) == made
    for wrong, named in (
        ({"busy": "yes", "others": 0.5}, "busy"),
        ({"busy": True}, "others"),
        ({"busy": True, "others": -0.5}, "others"),
        ({"busy": True, "others": 0.5, "why": "x"}, "why"),
        ([], "measured"),
    ):
        file.write_text(json.dumps(json.loads(made.to_json()) | {"measured": wrong}))
        with pytest.raises(ProfileError, match=named):
            load_profile(file)


def test_accuracies_are_read_back_and_checked(
    make_profile: Callable[..., Profile], tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    made = replace(make_profile(0.01, 0.02), accuracies=(0.5, 0.75))
    file.write_text(made.to_json())
    assert load_profile(file) == made
    for wrong, named in (([0.5], "accuracies has 1"), ([0.5, 1.5], "1.5"), (["a", 0.5], "'a'")):
        file.write_text(json.dumps(json.loads(made.to_json()) | {"accuracies": wrong}))
        with pytest.raises(ProfileError, match=named):
            load_profile(file)
