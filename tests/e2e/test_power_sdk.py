"""Energy in the SDK and on the command line, against a daemon whose sensors are files."""

from __future__ import annotations

import asyncio
import csv
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen
from delen.errors import Forbidden

if TYPE_CHECKING:
    from tests.e2e.conftest import Metered

Image8 = NDArray[np.uint8]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
PATIENCE = 60.0


@pytest.fixture
def client(metered: Metered, until: Callable[..., Any]) -> Iterator[delen.Client]:
    """A client of the metered daemon, which takes its limits away at the end."""
    with delen.Client(metered.daemon.url, tenant="camera") as client:
        yield client
        client.set_power(watt_cap=None, battery=None)
        client.set_tenant("camera", energy=None, period=None)
        until(lambda: client.plan().price == 0, "a price of 0")


@pytest.fixture
def told(metered: Metered, environment: Callable[..., dict[str, str]], tmp_path: Path) -> Run:
    """Runs ``delen power`` against the metered daemon."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "delen"), "power", *arguments],
            env=environment(DELEN_URL=metered.daemon.url),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_receipt_settles_itself(client: delen.Client, image: Image8) -> None:
    result = client.infer(image)
    energy = result.receipt.energy
    assert energy.kind == "estimated"
    final = energy.settled(timeout=PATIENCE)
    assert isinstance(final, delen.EnergyOutcome)
    assert final.kind in ("attributed", "estimated")
    past = client.request(result.request_id)
    assert past.settled
    assert past.receipt.energy == final
    assert (past.tenant, past.exit, past.reason) == ("camera", result.exit, result.reason)
    assert past.receipt.energy.settled() is past.receipt.energy


def test_a_batch_settles_one_by_one(client: delen.Client, images: Image8) -> None:
    results = client.infer(images[:3])
    finals = [result.receipt.energy.settled(timeout=PATIENCE) for result in results]
    assert [final.value is None for final in finals] == [False] * 3


def test_a_meter_adds_up_the_calls_of_its_block(client: delen.Client, images: Image8) -> None:
    client.infer(images[0])
    with client.meter() as meter:
        results = [client.infer(images[0]), *client.infer(images[:3])]
        client.plan()
        assert meter.seconds > 0
        with ThreadPoolExecutor(1) as other:
            results.append(other.submit(client.infer, images[1]).result())
    client.infer(images[0])
    seconds = meter.seconds
    assert meter.answers == len(results) == 5
    assert meter.joules == pytest.approx(sum(r.receipt.energy.value for r in results))
    assert meter.kind == "estimated"
    finals = [result.receipt.energy.settled(timeout=PATIENCE) for result in results]
    assert meter.settled(timeout=PATIENCE) is meter
    assert meter.joules == pytest.approx(sum(final.value for final in finals))
    assert (meter.kind == "attributed") == all(final.kind == "attributed" for final in finals)
    assert meter.seconds == seconds


def test_a_meter_that_cannot_settle_says_why(client: delen.Client, image: Image8) -> None:
    with client.meter() as meter:
        client.infer(image)
    with pytest.raises(delen.NotSettled):
        meter.settled(timeout=0.0)
    assert meter.joules is not None


def test_an_async_meter_is_awaited_to_settle(metered: Metered, images: Image8) -> None:
    async def run() -> None:
        async with delen.AsyncClient(metered.daemon.url) as client:
            with client.meter() as meter:
                results = await asyncio.gather(*(client.infer(each) for each in images[:4]))
            assert meter.answers == 4
            assert await meter.settled(timeout=PATIENCE) is meter
            finals = [await each.receipt.energy.settled() for each in results]
            assert meter.joules == pytest.approx(sum(final.value for final in finals))

    asyncio.run(run())


def test_what_cannot_be_settled_says_why(
    client: delen.Client, metered: Metered, image: Image8
) -> None:
    with pytest.raises(delen.NotSettled, match="not final after 0 s"):
        client.infer(image).receipt.energy.settled(timeout=0.0)
    with pytest.raises(delen.NotFound):
        client.request("0-0")
    with delen.Client(metered.daemon.url) as closed:
        left = closed.infer(image)
    with pytest.raises(delen.DelenError, match="closed"):
        left.receipt.energy.settled()
    kept = pickle.loads(pickle.dumps(left))
    assert kept.receipt.energy.settled() == left.receipt.energy


async def test_asyncio_awaits_it(metered: Metered, image: Image8) -> None:
    async with delen.AsyncClient(metered.daemon.url, tenant="camera") as client:
        result = await client.infer(image)
        final = await result.receipt.energy.settled(timeout=PATIENCE)
        assert final.kind in ("attributed", "estimated")
        assert (await client.request(result.request_id)).receipt.energy == final
        assert (await client.power())["source"] == "ina3221"
        assert (await client.power_history(60))[-1]["seconds"] > 0
        assert (await client.tenants())["camera"]["answers"] > 0
        told = await client.set_tenant("async", energy=50.0, period=60.0)
        assert told["budget"]["energy_j"] == 50.0
        assert (await client.set_tenant("async", energy=None, period=None))["budget"] is None
        assert (await client.set_power(watt_cap=30.0))["constraints"]
        assert (await client.set_power(watt_cap=None))["watts"] > 0


def test_an_engine_settles_without_a_daemon(metered: Metered, state: Path, image: Image8) -> None:
    with delen.Engine(power="model", state=state) as engine:
        energy = engine.infer(image).receipt.energy
        final = energy.settled(timeout=PATIENCE)
        assert (final.kind, final.source) == ("estimated", "model")


def test_a_budget_that_is_spent_is_an_exception(client: delen.Client, image: Image8) -> None:
    assert client.set_tenant("camera", energy=1e-6, period=3600.0)["budget"]["energy_j"] == 1e-6
    with pytest.raises(delen.BudgetExhausted) as caught:
        client.infer(image)
    assert caught.value.retry_after > 0
    assert client.tenants()["camera"]["refused"] >= 1
    assert client.set_tenant("camera", energy=None, period=None)["budget"] is None
    assert client.infer(image).label


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "a", "energy": 5.0, "period": None}, "period"),
        ({"name": "a", "energy": None, "period": 5.0}, "energy"),
        ({"name": "a", "energy": -5.0, "period": 5.0}, "energy"),
        ({"name": "a", "energy": 5.0, "period": 0.0}, "period"),
        ({"name": "a b", "energy": 5.0, "period": 5.0}, "name"),
    ],
)
def test_a_wrong_budget_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], field: str, closed_url: str
) -> None:
    with delen.Client(closed_url) as client, pytest.raises(delen.InvalidInput) as caught:
        client.set_tenant(**arguments)
    assert caught.value.field == field


def test_a_wrong_limit_is_refused_before_anything_is_sent(closed_url: str) -> None:
    with delen.Client(closed_url) as client:
        for watts in (0.0, -1.0, float("nan")):
            with pytest.raises(delen.InvalidInput, match="watt_cap"):
                client.set_power(watt_cap=watts)
        with pytest.raises(delen.InvalidInput, match="battery must be a Battery"):
            client.set_power(battery=8.0)  # type: ignore[arg-type]
    with pytest.raises(delen.InvalidInput, match="reserve"):
        delen.Battery(joules=100.0, reserve=100.0, last=60.0)


def test_limits_are_given_in_si_units(client: delen.Client) -> None:
    battery = delen.Battery(joules=8 * 3600.0, reserve=3600.0, last=2400.0)
    power = client.set_power(battery=battery, watt_cap=30.0)
    assert power["battery"]["left_wh"] == pytest.approx(8.0, rel=0.01)
    assert power["battery"]["reserve_wh"] == pytest.approx(1.0)
    assert {"watt_cap", "battery"} <= {each["name"] for each in power["constraints"]}
    assert client.set_power()["battery"] is not None
    with pytest.raises(Forbidden, match=r"power\.switch_modes"):
        client.set_power(mode="MAXN")


def test_a_plan_carries_its_price(client: delen.Client, until: Callable[..., Any]) -> None:
    assert client.plan().price == 0
    client.set_power(watt_cap=0.001)
    until(lambda: client.plan().limited_by == "price", "a plan under a price")
    assert client.plan().price > 0


def test_the_command_shows_power(told: Run) -> None:
    shown = told()
    assert shown.returncode == 0, shown.stderr
    assert "ina3221 (module_input, measured) on Orin NX: ok" in shown.stdout
    assert "VDD_SOC 1.50 W" in shown.stdout
    assert "price" in shown.stdout
    assert json.loads(told("--json").stdout)["board"] == "Orin NX"


@pytest.mark.usefixtures("client")
def test_the_command_sets_limits(told: Run) -> None:
    shown = told("--watt-cap", "30W", "--battery", "8Wh", "--reserve", "1Wh", "--last", "40min")
    assert shown.returncode == 0, shown.stderr
    assert "watt_cap" in shown.stdout
    assert "to last 40.0 min" in shown.stdout
    power = json.loads(told("--watt-cap", "none", "--battery", "none", "--json").stdout)
    assert power["battery"] is None
    assert "watt_cap" not in {each["name"] for each in power["constraints"]}


def test_the_command_shows_the_history(told: Run, until: Callable[..., Any]) -> None:
    until(lambda: json.loads(told("--history", "5min", "--json").stdout), "a closed window")
    lines = told("--history").stdout.splitlines()
    assert lines[0].split() == ["ended", "watts", "requests", "idle", "other", "kind"]
    assert len(lines) > 1


def test_the_command_prints_windows_as_csv(told: Run, until: Callable[..., Any]) -> None:
    until(lambda: json.loads(told("--history", "5min", "--json").stdout), "a closed window")
    shown = told("--csv", "--since", "2h")
    assert shown.returncode == 0, shown.stderr
    rows = list(csv.DictReader(shown.stdout.splitlines()))
    assert rows
    assert 7.49 < float(rows[-1]["watts"]) < 30
    assert float(rows[-1]["VDD_SOC_w"]) == pytest.approx(1.5, abs=0.02)


def test_the_command_shows_the_energy_of_apps(told: Run, client: delen.Client) -> None:
    shown = told("--apps")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(told("--apps", "--json").stdout).keys() == client.tenants().keys()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--watt-cap", "12"], 2, "unit"),
        (["--battery", "8Wh"], 2, "--last"),
        (["--reserve", "1Wh"], 2, "--battery"),
        (["--battery", "1Wh", "--reserve", "2Wh", "--last", "1min"], 2, "reserve"),
        (["--mode", "MAXN"], 1, "power.switch_modes"),
    ],
)
def test_the_command_refuses_what_is_wrong(
    told: Run, arguments: list[str], status: int, said: str
) -> None:
    ended = told(*arguments)
    assert ended.returncode == status
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_plan_that_a_budget_refuses_names_it(
    client: delen.Client,
    metered: Metered,
    environment: Callable[..., dict[str, str]],
) -> None:
    client.set_tenant("camera", energy=1e-6, period=3600.0)
    plan = client.plan()
    assert (plan.feasible, plan.constraint) == (False, "budget/camera")
    assert plan.retry_after is not None
    assert plan.retry_after > 0
    shown = subprocess.run(
        [str(Path(sys.executable).parent / "delen"), "plan", "--tenant", "camera"],
        env=environment(DELEN_URL=metered.daemon.url),
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 1
    assert plan.problem is not None
    assert f"infeasible: {plan.problem.split(',')[0]}" in shown.stdout
