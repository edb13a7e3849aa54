"""An observer, a model and a runtime, each with everything that is not under test left plain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import Bundle, load_bundle
from delen.core.result import Result
from delen.core.work import Work
from delen.engine.model import Model, OpenedBundle
from delen.engine.runtime import Runtime
from delen.profile.cost_model import CostModel
from delen.residency.lease import ModelResidency
from delen.scheduler.core import Scheduler
from policies.dispatch.value import Value
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import Planner, PlannerSettings

PATIENCE = 60.0
"""How long a test waits for what has to happen before it fails; nothing is timed by it."""


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.works: list[Work] = []
        self.policy_failures = 0
        self.segment_failures: list[tuple[str, int]] = []
        self.dispatch_failures = 0
        self.audits: list[bool] = []
        self._audited = threading.Semaphore(0)

    def answered(self, result: Result) -> None:
        self.results.append(result)

    def ran(self, work: Work) -> None:
        self.works.append(work)

    def policy_failed(self, model: str) -> None:
        self.policy_failures += 1

    def segment_failed(self, model: str, segment: int) -> None:
        self.segment_failures.append((model, segment))

    def dispatch_failed(self, times: int) -> None:
        self.dispatch_failures += times

    def audited(self, model: str, agreed: bool) -> None:
        self.audits.append(agreed)
        self._audited.release()

    def wait_for_audits(self, count: int) -> None:
        """Returns once ``count`` audits have ended that no earlier call waited for."""
        for _ in range(count):
            assert self._audited.acquire(timeout=PATIENCE)


def build_model(
    bundle: Path | Bundle,
    costs: CostModel,
    *,
    network: Any = None,
    calibration: Calibration | None = None,
    policy: Any = None,
    **parts: Any,
) -> Model:
    """The model of a bundle. Without ``network`` its own graphs run on one thread of the CPU."""
    if isinstance(bundle, Path):
        bundle = load_bundle(bundle)
    if network is None:
        from delen.engine.backends.choose import BundleBackends

        network = BundleBackends("cpu", 1).load(bundle)
    planner = Planner(calibration or bundle.calibration, PlannerSettings())
    return Model(bundle, network, planner, policy or BoundsPolicy(), costs, **parts)


class ReadyBundle:
    """The open bundle of a model that is made already."""

    def __init__(self, model: Model) -> None:
        self.bundle = model.bundle
        self._model = model

    def load(self, segment: int) -> None:
        """It is loaded."""

    def drop(self, segment: int) -> None:
        """It goes with the model."""

    def complete(self, residency: ModelResidency, is_whole: bool) -> Model:
        return self._model


def build_runtime(
    bundles: Iterable[Path],
    load: Callable[[Path], Model | OpenedBundle],
    *,
    observer: Any = None,
    dispatch: Any = None,
    lanes: int = 1,
    loaded: Iterable[str] = ("tiny",),
    max_backlog: float = inf,
    **parts: Any,
) -> Runtime:
    """A runtime on one thread, with the models that ``loaded`` names."""

    def open_bundle(path: Path) -> OpenedBundle | ReadyBundle:
        made = load(path)
        return ReadyBundle(made) if isinstance(made, Model) else made

    policy = dispatch or Value()
    runtime = Runtime(
        lambda: bundles,
        open_bundle,
        observer or Recorder(),
        1,
        Scheduler(policy, policy, lanes, max_backlog=max_backlog),
        **parts,
    )
    for name in loaded:
        runtime.load(name)
    return runtime
