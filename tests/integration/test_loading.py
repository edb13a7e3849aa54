"""Whole models that are loaded and unloaded by name, while other calls come in between."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import MANIFEST, Bundle, load_bundle
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.engine.backends.base import Network
from delen.engine.backends.choose import BundleBackends
from delen.engine.executor import Executor
from delen.engine.model import Model, OpenedBundle
from delen.engine.runtime import Runtime
from delen.errors import BundleError, ModelLoading
from delen.profile.cost_model import CostModel
from delen.residency.lease import ModelResidency
from delen.residency.state import Evict, Load, ResidencyState
from tests.builders.engine import PATIENCE, build_model, build_runtime

pytest.importorskip("onnxruntime", reason="the engine needs onnxruntime: delen[daemon]")

A_MOMENT = 0.2
"""Seconds for another thread to get ahead, or to find that it has to wait."""

IMAGE = np.zeros((4, 4, 1), np.uint8)


class Loads:
    """Opens bundles; ``before`` is called with the name of each, and ``networks`` knows of each
    network that is still somewhere in memory."""

    def __init__(self, make_costs: Callable[..., CostModel]) -> None:
        self._make_costs = make_costs
        self.before: Callable[[str], object] = lambda name: None
        self.networks: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self, path: Path) -> OpenedBundle:
        bundle = load_bundle(path)
        network = BundleBackends("cpu", 1).open(bundle)
        self.networks.add(network)
        self.before(bundle.name)
        return OpenedBundle(bundle, network, self._complete)

    def _complete(
        self, bundle: Bundle, network: Network, residency: ModelResidency, is_whole: bool
    ) -> Model:
        assert is_whole
        costs = self._make_costs(0.02, 0.02, 0.02)
        return build_model(bundle, costs, network=network, residency=residency)

    def in_memory(self) -> int:
        gc.collect()
        return len(self.networks)


@pytest.fixture
def loads(make_costs: Callable[..., CostModel]) -> Loads:
    return Loads(make_costs)


@pytest.fixture
def folders(tmp_path: Path, write_bundle: Callable[..., Path]) -> list[Path]:
    return [write_bundle(tmp_path / name, name=name) for name in ("a", "b")]


@pytest.fixture
def runtime(folders: list[Path], loads: Loads) -> Iterator[Runtime]:
    runtime = build_runtime(folders, loads, loaded=())
    yield runtime
    runtime.close()


def infer(runtime: Runtime, name: str) -> Result:
    return runtime.submit(name, IMAGE, Bounds(), Options()).future.result(PATIENCE)


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_model_that_is_loaded_while_bundles_are_looked_for_is_served(
    runtime: Runtime, loads: Loads
) -> None:
    is_loading, go_on = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name == "a":
            is_loading.set()
            assert go_on.wait(PATIENCE)

    loads.before = wait
    first = threading.Thread(target=runtime.load, args=("a",))
    second = threading.Thread(target=runtime.load, args=("b",))
    first.start()
    assert is_loading.wait(PATIENCE)
    second.start()
    second.join(A_MOMENT)  # it waits for the first
    runtime.store.rescan()
    go_on.set()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert [entry.state for _, entry in runtime.store.entries()] == ["ready", "ready"]
    assert infer(runtime, "b").model == "b"
    for name in ("a", "b"):
        runtime.unload(name)
    assert loads.in_memory() == 0


def test_a_folder_that_changed_is_described_as_it_is_loaded(
    runtime: Runtime, folders: list[Path]
) -> None:
    runtime.load("a")
    rewrite(folders[0], version="2", description="better")
    assert runtime.store.entry("a").manifest.version == infer(runtime, "a").version == "1"
    runtime.unload("a")
    runtime.load("a")
    assert runtime.store.entry("a").manifest.version == infer(runtime, "a").version == "2"
    runtime.unload("a")
    assert runtime.store.entry("a").manifest.description == "better"


def test_a_folder_with_another_model_by_now_is_not_loaded_under_the_old_name(
    runtime: Runtime, folders: list[Path], loads: Loads
) -> None:
    rewrite(folders[0], name="c")
    with pytest.raises(BundleError, match=r"'c'.*SIGHUP"):
        runtime.load("a")
    assert (runtime.store.entry("a").state, loads.in_memory()) == ("failed", 0)
    runtime.store.rescan()
    assert [name for name, _ in runtime.store.entries()] == ["b", "c"]
    assert runtime.load("c").name == "c"


def test_an_unload_in_the_middle_of_a_load_leaves_nothing_behind(
    runtime: Runtime, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    unload = threading.Thread(target=runtime.unload, args=("a",))
    add, remove = Executor.add_model, Executor.remove_model

    def add_later(executor: Executor, model: Model) -> None:
        unload.start()
        unload.join(A_MOMENT)  # it may be over before what follows, or may have to wait for it
        add(executor, model)
        calls.append("ready")

    def note_removal(executor: Executor, name: str) -> int:
        calls.append("unloaded")
        return remove(executor, name)

    monkeypatch.setattr(Executor, "add_model", add_later)
    monkeypatch.setattr(Executor, "remove_model", note_removal)
    runtime.load("a")
    unload.join(PATIENCE)
    assert runtime.store.entry("a").state == calls[-1]
    assert (runtime.store.entry("a").model is None) == (loads.in_memory() == 0)


def test_the_unload_of_a_model_that_is_removed_meanwhile_leaves_it_removed(
    runtime: Runtime, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Executor.remove_model

    def rescan_first(executor: Executor, name: str) -> int:
        folders.pop(0)
        runtime.store.rescan()
        return remove(executor, name)

    monkeypatch.setattr(Executor, "remove_model", rescan_first)
    runtime.unload("a")
    assert [name for name, _ in runtime.store.entries()] == ["b"]


def test_a_loader_whose_step_fails_loads_what_comes_next(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, failed: Callable[[str], int]
) -> None:
    next_step, is_broken = ResidencyState.next_step, threading.Event()
    is_broken.set()

    def fail_once(state: ResidencyState[Model], now: float) -> Load | Evict | None:
        if is_broken.is_set():
            is_broken.clear()
            raise RuntimeError("a fault")
        return next_step(state, now)

    monkeypatch.setattr(ResidencyState, "next_step", fail_once)
    loading = threading.Thread(target=runtime.load, args=("a",), daemon=True)
    loading.start()
    loading.join(PATIENCE)
    assert runtime.store.entry("a").state == "ready"
    assert failed("loader") == 1


def test_a_model_that_fails_to_load_says_why_until_its_folder_is_looked_at_again(
    runtime: Runtime, folders: list[Path], loads: Loads
) -> None:
    aside = folders[0].with_name("aside")
    shutil.copytree(folders[0], aside)
    (folders[0] / "segment1.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="segment1"):
        runtime.load("a")
    entry = runtime.store.entry("a")
    assert entry.state == "failed" and "segment1" in str(entry.problem)
    with pytest.raises(ModelLoading, match=r"failed.*segment1"):
        runtime.submit("a", IMAGE, Bounds(), Options())
    runtime.store.rescan()
    assert (runtime.store.entry("a").state, runtime.store.entry("a").problem) == ("unloaded", None)
    shutil.copy(aside / "segment1.onnx", folders[0])
    runtime.load("a")
    assert infer(runtime, "a").model == "a"


def test_a_loaded_model_outlives_its_folder_until_it_is_unloaded(
    runtime: Runtime, folders: list[Path]
) -> None:
    runtime.load("a")
    gone = folders.pop(0)
    shutil.rmtree(gone)
    runtime.store.rescan()
    assert infer(runtime, "a").model == "a"
    runtime.unload("a")
    assert runtime.store.entry("a").state == "unloaded"
    runtime.store.rescan()
    assert [name for name, _ in runtime.store.entries()] == ["b"]
