"""Real networks on two lanes at once: every answer is that of the network alone."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delen
from delen.bundle.manifest import load_bundle
from delen.commands.main import main
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.daemon.build_runtime import configured_lanes
from delen.daemon.config import config_of
from delen.engine.backends.base import Network
from delen.engine.backends.choose import BundleBackends
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import BackendError, Draining
from delen.measure.interference import Rounds, measure_interference
from delen.profile.cost_model import CostModel
from delen.profile.reader import load_profile
from policies.dispatch.published.edf import Edf
from tests.builders.engine import PATIENCE, Recorder, build_model, build_runtime

pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

IMAGES = np.random.default_rng(9).integers(0, 256, (64, 4, 4, 1), dtype=np.uint8)
ALL = Options(probabilities=True)
TO_THE_END = Bounds(max_energy=1.0)


class Meeting:
    """Where the first runs of two lanes wait for each other, so that they do overlap."""

    def __init__(self) -> None:
        self._meets = threading.Barrier(2)
        self.took_place = False

    def wait(self) -> None:
        if not self.took_place:
            self._meets.wait(PATIENCE)
            self.took_place = True


class Watched:
    """A network that may be made to fail in segment 1, to wait for a ``meeting`` first, and to be
    held: no run begins while ``may_run`` is clear."""

    def __init__(self, network: Network, meeting: Meeting | None = None) -> None:
        self._network = network
        self._meeting = meeting
        self.placement = network.placement
        self.fails = False
        self.entered, self.may_run = threading.Event(), threading.Event()
        self.may_run.set()

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> Any:
        if self._meeting is not None:
            self._meeting.wait()
        self.entered.set()
        assert self.may_run.wait(PATIENCE)
        if self.fails and segment == 1:
            raise RuntimeError("out of memory")
        return self._network.run(segment, samples, lane)


@pytest.fixture(scope="module")
def two_bundles(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny bundle, and the same under the name ``other``."""
    other = tmp_path_factory.mktemp("bundles") / "other"
    shutil.copytree(tiny_bundle, other)
    manifest = other / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "name": "other"}))
    return [tiny_bundle, other]


@pytest.fixture
def open_runtime(
    two_bundles: list[Path], make_costs: Callable[..., CostModel]
) -> Iterator[Callable[..., Runtime]]:
    """Opens runtimes with both models loaded, and whatever ``wrap`` makes of their networks."""
    opened: list[Runtime] = []

    def make(lanes: int, observer: Recorder, wrap: Callable[[Network], Any]) -> Runtime:
        def load(path: Path) -> Model:
            bundle = load_bundle(path)
            network = wrap(BundleBackends("cpu", 1).load(bundle))
            costs = make_costs(100.0, 100.0, 100.0, energy=(0.01,) * 3, growth=0.0, lanes=lanes)
            return build_model(bundle, costs, network=network)

        runtime = build_runtime(
            two_bundles,
            load,
            observer=observer,
            dispatch=Edf(),
            lanes=lanes,
            loaded=("tiny", "other"),
        )
        opened.append(runtime)
        return runtime

    yield make
    for runtime in opened:
        runtime.close()


def infer_all(runtime: Runtime) -> list[Result]:
    """All images by each model in turn, from several threads."""
    asked = [(("tiny", "other")[n % 2], IMAGES[n % 64]) for n in range(200)]

    def ask(number: int) -> list[Result]:
        jobs = [runtime.submit(*one, TO_THE_END, ALL) for one in asked[number::4]]
        return [job.future.result(PATIENCE) for job in jobs]

    with ThreadPoolExecutor(4) as clients:
        parts = list(clients.map(ask, range(4)))
    return [parts[n % 4][n // 4] for n in range(200)]


def test_two_models_on_two_lanes_answer_as_on_one(open_runtime: Callable[..., Runtime]) -> None:
    seen = Recorder()
    expected = infer_all(open_runtime(1, Recorder(), lambda network: network))
    meeting = Meeting()
    got = infer_all(open_runtime(2, seen, lambda network: Watched(network, meeting)))
    assert meeting.took_place
    for mine, right in zip(got, expected, strict=True):
        assert (mine.model, mine.exit, mine.index) == (right.model, right.exit, right.index)
        np.testing.assert_allclose(mine.probabilities, right.probabilities, atol=1e-5)
    assert len({result.request_id for result in got}) == 200
    assert {work.model for work in seen.works} == {"tiny", "other"}


def test_lanes_that_fail_fail_their_jobs_alone_and_close_under_load(
    open_runtime: Callable[..., Runtime],
) -> None:
    networks: list[Watched] = []

    def wrap(network: Network) -> Watched:
        networks.append(Watched(network))
        return networks[-1]

    runtime = open_runtime(2, Recorder(), wrap)
    networks[0].fails = True
    broken = [runtime.submit("tiny", image, TO_THE_END, ALL) for image in IMAGES]
    whole = [runtime.submit("other", image, TO_THE_END, ALL) for image in IMAGES]
    assert {job.future.result(PATIENCE).reason for job in whole} == {"final"}
    assert {(r.exit, r.reason) for r in (job.future.result(PATIENCE) for job in broken)} == {
        (0, "failed")
    }, "each has the answer of the exit before"
    networks[0].fails = False
    other = networks[1]
    other.may_run.clear()
    other.entered.clear()
    late = [runtime.submit("other", image, TO_THE_END, ALL) for image in list(IMAGES) * 4]
    assert other.entered.wait(PATIENCE)
    closing = threading.Thread(target=runtime.close)
    closing.start()
    try:
        with pytest.raises(Draining):
            late[-1].future.result(PATIENCE)
    finally:
        other.may_run.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    refused = [job.future.exception(PATIENCE) for job in late]
    answered = [job.future.result() for job in late if job.future.exception() is None]
    assert {type(error) for error in refused} == {type(None), Draining}
    assert 1 <= len(answered) <= 2 * 8, "what the lanes ran is answered"
    assert {result.reason for result in answered} == {"cancelled"}


def test_a_lane_has_buffers_of_its_own_and_takes_what_another_gave(tiny_bundle: Path) -> None:
    network = BundleBackends("cpu", 1).load(load_bundle(tiny_bundle))
    first = network.run(0, list(IMAGES[:2]))
    kept = first.logits.copy()
    other = network.run(0, list(IMAGES[2:4]), lane=1)
    np.testing.assert_array_equal(first.logits, kept)
    mixed = network.run(1, [other.features[1], first.features[0]], lane=1).logits.copy()
    for row, image in enumerate((IMAGES[3], IMAGES[0])):
        alone = network.run(1, network.run(0, [image]).features).logits[0]
        np.testing.assert_allclose(mixed[row], alone, atol=1e-4)


def test_interference_is_measured_and_a_network_that_fails_says_so(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    network = BundleBackends("cpu", 1).load(bundle)
    factors = measure_interference(bundle, network, 3, Rounds(1, 0.005))
    assert len(factors) == 3
    assert factors[0] == 1
    assert min(factors) >= 1

    class Broken:
        placement = network.placement

        def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> Any:
            if lane == 1:
                raise BackendError("out of memory")
            return network.run(segment, samples, lane)

    with pytest.raises(BackendError, match="out of memory"):
        measure_interference(bundle, Broken(), 2, Rounds(1, 0.005))


@pytest.mark.usefixtures("brief_profile")
def test_the_engine_measures_what_its_lanes_cost_and_serves_on_them(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    with delen.Engine(tiny_bundle, state=tmp_path, threads=1, instances=2) as engine:
        results = engine.infer(IMAGES)
    assert [result.model for result in results] == ["tiny"] * 64
    (file,) = tmp_path.rglob("profiles/**/*.json")
    profile = load_profile(file)
    assert profile.interference is not None
    assert len(profile.interference) == 2


@pytest.mark.usefixtures("brief_profile")
def test_the_command_compares_instances(
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DELEN_DEVICE__THREADS", "1")
    monkeypatch.setenv("DELEN_STATE__PATH", str(tmp_path))
    monkeypatch.setattr("delen.profile.device.available_cores", lambda: 2)
    monkeypatch.setattr("delen.measure.interference.QUICK_ROUNDS", Rounds(1, 0.02))
    assert main(["profile", "--bundle", str(tiny_bundle), "--quick", "--instances"]) == 0
    told = capsys.readouterr().out
    assert "times longer while 0, 1, ... other instances run: 1.00, " in told
    assert "best for the most work: device.instances = " in told
    assert "best for a single request: device.instances = 1, device.threads = " in told
    assert "times longer a batch (row) takes beside batches of another instance" in told


def test_more_threads_than_cores_are_allowed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    config = config_of({"device.instances": 64, "device.threads": 4})
    with caplog.at_level(logging.WARNING, "delen"):
        assert configured_lanes(config, "cpu") == 64
    assert "device.instances 64 with device.threads 4 each are 256 threads for" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "delen"):
        assert configured_lanes(config_of({"device.threads": 1}), "cpu") == 1
        assert configured_lanes(config, "cuda") == 64
    assert not caplog.text


def test_the_default_policy_serves_two_lanes(
    tiny_bundle: Path, make_costs: Callable[..., CostModel]
) -> None:
    """Its first batches wait for each other. It may answer early, with what the exit says."""
    bundle, meeting = load_bundle(tiny_bundle), Meeting()
    network = BundleBackends("cpu", 1).load(bundle)
    expected = []
    for image in IMAGES:
        reached, alone = [image], []
        for segment in range(3):
            run = network.run(segment, reached)
            alone.append(int(run.logits[0].argmax()))
            reached = run.features
        expected.append(alone)
    costs = make_costs(100.0, 100.0, 100.0, growth=0.0, lanes=2, corun=(1.0, 1.2))
    model = build_model(bundle, costs, network=Watched(network, meeting))
    runtime = build_runtime([tiny_bundle], lambda path: model, lanes=2)
    asked = [number % 64 for number in range(320)]
    jobs = [runtime.submit("tiny", IMAGES[index], Bounds(), ALL) for index in asked]
    results = [job.future.result(PATIENCE) for job in jobs]
    runtime.close()
    assert meeting.took_place
    for index, result in zip(asked, results, strict=True):
        assert result.index == expected[index][result.exit]
