"""The SDK against a real daemon, over TCP and the Unix socket, and with no daemon at all."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import delen
from delen.errors import ModelLoading, TooLarge
from delen.sdk.client import _kept_client

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher
    from tests.e2e.conftest import Gated

Image8 = NDArray[np.uint8]


@pytest.fixture(params=["tcp", "unix"])
def client(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[delen.Client]:
    url = daemon.url if request.param == "tcp" else daemon.unix_url
    with delen.Client(url) as client:
        yield client


def test_infer_finds_the_daemon_by_delen_url(
    daemon: Daemon, image: Image8, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (daemon.url, str(daemon.unix_url)):
        monkeypatch.setenv("DELEN_URL", url)
        result = delen.infer(image, max_energy=1000.0)
        assert isinstance(result, delen.Result)
        assert result.receipt.energy.bound == pytest.approx(1000.0)
        with delen.Client() as client:
            assert client.url == url
            assert client.transport == ("tcp" if url == daemon.url else "shm")
            assert delen.AsyncClient(url).transport == client.transport
            assert client.infer(image).label == result.label


def test_a_result_has_what_the_contract_names(client: delen.Client, image: Image8) -> None:
    result = client.infer(image, max_latency=20.0, min_accuracy=0.8, stream="front", top_k=3)
    assert isinstance(result.label, str)
    assert result.predictions[0].index == result.index == int(result.probabilities.argmax())
    assert result.probability == pytest.approx(float(result.probabilities[result.index]), abs=1e-6)
    assert result.probabilities.shape == (10,)
    assert len(result.predictions) == 3
    assert result.exits == 5
    assert result.exit in range(5)
    assert result.reason in ("confident", "planned_exit", "final")
    assert result.stream == "front"
    assert result.receipt.met is True
    assert result.receipt.latency.bound == 20.0
    assert 0 < result.receipt.latency.value < 20.0
    assert result.receipt.accuracy.guarantee == 0.95


def test_every_kind_of_input_gives_the_same_answer(
    client: delen.Client,
    image: Image8,
    png: Callable[[Image8], bytes],
    jpeg: Callable[[Image8], bytes],
    npy: Callable[[Image8], bytes],
    tmp_path: Path,
) -> None:
    png_file, npy_file = tmp_path / "image.png", tmp_path / "image.npy"
    png_file.write_bytes(png(image))
    npy_file.write_bytes(npy(image))
    picture = Image.fromarray(image)
    palette = picture.convert("CMYK").convert("RGB")
    inputs = [
        image, picture, png_file, str(png_file), npy_file, png(image), npy(image),
        bytearray(png(image)), memoryview(npy(image)), palette,
    ]  # fmt: skip
    results = [client.infer(x) for x in inputs]
    for result in results[:-1]:
        assert result.probabilities == pytest.approx(results[0].probabilities, abs=1e-5)
    assert client.infer(jpeg(image)).label == results[-1].label == results[0].label


def test_a_batch_returns_a_list(client: delen.Client, images: Image8) -> None:
    results = client.infer(images[:5])
    assert isinstance(results, list)
    assert [r.index for r in results] == [client.infer(image).index for image in images[:5]]


def test_model_and_tenant_of_the_client(daemon: Daemon, image: Image8) -> None:
    with delen.Client(daemon.url, model="cifar10-resnet", tenant="porch") as client:
        result = client.infer(image)
        assert (result.model, result.tenant) == ("cifar10-resnet", "porch")
        with pytest.raises(delen.ModelNotFound):
            client.infer(image, model="nothing")


def test_plan_models_and_power(client: delen.Client) -> None:
    plan = client.plan(min_accuracy=0.85)
    assert isinstance(plan, delen.Preview)
    assert plan.feasible
    assert plan.accuracy >= 0.85
    assert [point.exit for point in plan.points] == 3 * [0, 1, 2, 3, 4]
    assert [point.size for point in plan.points[::5]] == [(20, 20), (24, 24), (32, 32)]
    assert 0 < plan.points[0].latency < plan.points[-1].latency
    refused = client.plan(max_latency=1e-7)
    assert not refused.feasible
    assert refused.nearest is not None
    assert refused.nearest.max_latency is not None
    assert client.plan(max_latency=refused.nearest.max_latency).feasible
    assert {model["name"] for model in client.models()} == {
        "cifar10-resnet",
        "second",
        "spoken-digits",
    }
    assert client.power()["kind"] == "estimated"


def test_load_and_unload(client: delen.Client, image: Image8) -> None:
    assert client.load("second")["state"] == "ready"
    assert client.infer(image, model="second").model == "second"
    assert client.unload("second")["state"] == "unloaded"
    with pytest.raises(ModelLoading) as caught:
        client.infer(image, model="second")
    assert isinstance(caught.value, delen.Overloaded)
    assert caught.value.retry_after > 0


def test_errors_come_back_as_exceptions(client: delen.Client, image: Image8) -> None:
    with pytest.raises(delen.InvalidInput) as shape:
        client.infer(image[:16])
    assert shape.value.field == "input"
    with pytest.raises(delen.ModelNotFound, match="cifar10-resnet"):
        client.infer(image, model="no/such model?")
    with pytest.raises(TooLarge):
        client.infer(np.zeros((2000, 32, 32, 3), np.uint8))
    assert client.infer(image).label


def test_an_infeasible_bound_names_the_nearest_in_si_units(
    client: delen.Client, image: Image8
) -> None:
    with pytest.raises(delen.InfeasibleBound) as latency:
        client.infer(image, max_latency=1e-7)
    assert 1e-7 < latency.value.nearest.max_latency < 5
    with pytest.raises(delen.InfeasibleBound) as energy:
        client.infer(image, max_energy=1e-9)
    joules = energy.value.nearest.max_energy
    assert 1e-9 < joules < 5
    assert client.infer(image, max_energy=joules).receipt.energy.predicted <= joules
    with pytest.raises(delen.InfeasibleBound) as accuracy:
        client.infer(image, min_accuracy=0.9999)
    assert client.infer(image, min_accuracy=accuracy.value.nearest.min_accuracy).receipt.met
    effort = client.infer(image, max_latency=1e-7, on_infeasible="best_effort")
    assert effort.receipt.met is False


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"max_latency": -1}, "max_latency"),
        ({"max_latency": float("nan")}, "max_latency"),
        ({"min_accuracy": 90}, "min_accuracy"),
        ({"max_energy": "50mJ"}, "max_energy"),
        ({"priority": 10}, "priority"),
        ({"top_k": 0}, "top_k"),
        ({"on_infeasible": "never"}, "on_infeasible"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    image: Image8, arguments: dict[str, Any], field: str, closed_url: str
) -> None:
    with delen.Client(closed_url) as client, pytest.raises(delen.InvalidInput) as caught:
        client.infer(image, **arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("x", [None, 5, [[1, 2]], b"PK\x03\x04", "/no/such/file", object()])
def test_what_is_no_input_is_refused_before_anything_is_sent(x: Any, closed_url: str) -> None:
    with delen.Client(closed_url) as client, pytest.raises(delen.InvalidInput):
        client.infer(x)


def test_overload_carries_when_to_come_back(overloaded: Daemon, images: Image8) -> None:
    with delen.Client(overloaded.url) as client, pytest.raises(delen.Overloaded) as caught:
        client.infer(images)
    assert caught.value.retry_after > 0


def test_a_batch_that_is_too_large_carries_the_largest_size(daemon: Daemon, images: Image8) -> None:
    batch = np.concatenate([images] * 8)
    with delen.Client(daemon.url) as client:
        least = client.plan(max_latency=60.0).points[0].latency
        with pytest.raises(delen.BatchTooLarge) as caught:
            client.infer(batch, max_latency=20 * least)
    assert 1 <= caught.value.largest < len(batch)


def test_no_daemon_says_where_it_was_looked_for(
    image: Image8, tmp_path: Path, closed_url: str
) -> None:
    for url in (closed_url, f"unix://{tmp_path}/none.sock"):
        with delen.Client(url) as client, pytest.raises(delen.DaemonUnreachable) as caught:
            client.infer(image)
        assert url in str(caught.value)
        assert "delen-daemon" in str(caught.value)


def test_a_daemon_that_gives_no_answer_is_given_up_in_time(image: Image8) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with delen.Client(url, timeout=0.2) as client:
            with pytest.raises(delen.DaemonUnreachable, match="in time") as caught:
                client.infer(image)
            assert url in str(caught.value)
        with delen.Client(url) as patient, pytest.raises(delen.DaemonUnreachable):
            patient.infer(image, timeout=0.2)


@pytest.mark.parametrize("make", ["infer", "Client", "AsyncClient"])
def test_a_daemon_that_comes_back_elsewhere_is_found(
    launcher: Launcher, images: Image8, make: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DELEN_URL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("delen.sdk.address.SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    _kept_client.cache_clear()
    ask = getattr(delen, make) if make == "infer" else getattr(delen, make)().infer

    def answer() -> Any:
        asked = ask(images[0])
        return asyncio.run(asked) if make == "AsyncClient" else asked

    first = launcher.start({"server": {"socket": str(tmp_path / "delen.sock")}})
    monkeypatch.setattr("delen.sdk.address.TCP_URL", first.url)
    assert answer().label
    first.process.kill()
    first.process.wait()
    assert (tmp_path / "delen.sock").exists()
    with pytest.raises(delen.DaemonUnreachable, match=r"delen\.sock"):
        answer()
    second = launcher.start({"server": {"socket": str(tmp_path / "system.sock")}})
    assert answer().label
    launcher.stop(second)
    _kept_client.cache_clear()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "unix:/x"])
def test_an_address_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(delen.InvalidInput, match="unix:///"):
        delen.Client(url)


def test_something_else_at_the_address_is_no_surprise(image: Image8) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=answer, args=[listener])
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with delen.Client(url) as client, pytest.raises(delen.DelenError):
            client.infer(image)
        thread.join()


def test_threads_share_a_client_and_get_their_own_answers(
    client: delen.Client, images: Image8
) -> None:
    expected = [client.infer(image).probabilities for image in images]

    def ask(thread: int) -> None:
        for number in range(10):
            which = (7 * thread + number) % len(images)
            result = client.infer(images[which], stream=f"s{thread}")
            assert result.index == int(expected[which].argmax())
            assert result.stream == f"s{thread}"

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(ask, thread) for thread in range(16)]:
            done.result()


async def test_the_async_client_gathers(daemon: Daemon, images: Image8) -> None:
    with delen.Client(daemon.url) as client:
        expected = [client.infer(image).index for image in images]
    for url in (daemon.url, daemon.unix_url):
        async with delen.AsyncClient(url, tenant="async") as client:
            results = await asyncio.gather(*(client.infer(image) for image in images))
            assert [result.index for result in results] == expected
            assert results[0].tenant == "async"
            assert len(await client.infer(images[:3])) == 3
            assert (await client.plan(min_accuracy=0.8)).feasible
            assert len(await client.models()) == 3
            assert (await client.power())["source"] == "model"
            assert (await client.load("second"))["state"] == "ready"
            assert (await client.unload("second"))["state"] == "unloaded"
            with pytest.raises(delen.InfeasibleBound):
                await client.infer(images[0], max_latency=1e-7)


async def test_the_async_client_says_where_no_daemon_is(image: Image8, closed_url: str) -> None:
    async with delen.AsyncClient(closed_url) as client:
        with pytest.raises(delen.DaemonUnreachable, match=re.escape(closed_url)):
            await client.infer(image)


APART = """
import multiprocessing, sys
import numpy as np
import delen

def ask(url, answers):
    with delen.Client(url) as client:
        answers.put(client.infer(np.load("image.npy")).index)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    answers = context.Queue()
    with delen.Client(sys.argv[2]) as client:
        print(client.infer(np.load("image.npy")).index)
        for _ in range(2):
            process = context.Process(target=ask, args=(sys.argv[2], answers))
            process.start()
            print(answers.get(timeout=60))
            process.join()
        print(client.infer(np.load("image.npy")).index)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_are_begun_from_one_with_a_client_have_their_own(
    daemon: Daemon, image: Image8, method: str, tmp_path: Path
) -> None:
    (tmp_path / "apart.py").write_text(APART)
    np.save(tmp_path / "image.npy", image)
    ended = subprocess.run(
        [sys.executable, "apart.py", method, daemon.url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    with delen.Client(daemon.url) as client:
        assert ended.stdout.split() == [str(client.infer(image).index)] * 4


async def test_requests_cancelled_in_flight_run_no_further(
    gated: Gated, state: Path, images: Image8, metric: Any, until: Any
) -> None:
    daemon = gated.daemon
    gated.gate.close()

    async def until_jobs(most: int, least: int = 0) -> None:
        def are_left() -> bool:
            return bool(least <= metric(daemon.api, "delen_jobs") <= most)

        await asyncio.to_thread(until, are_left, f"{least} to {most} jobs")

    async with delen.AsyncClient(daemon.url) as client:
        first = asyncio.create_task(client.infer(images[0]))
        await until_jobs(1, 1)
        asked = [asyncio.create_task(client.infer(images[:10])) for _ in range(4)]
        await until_jobs(41, 41)
        for task in asked:
            task.cancel()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in ended} == {asyncio.CancelledError}
        await until_jobs(1, 1)
        gated.gate.open()
        with delen.Engine(state=state) as engine:
            expected = engine.infer(images[:2])
        assert (await first).index == expected[0].index
        assert (await client.infer(images[1])).index == expected[1].index
