"""Serving as one object: models, plans, admission and the worker behind them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from delen.core.bounds import Bounds, Options
from delen.core.guarantee import Feedback
from delen.core.plan import Plan, Preview
from delen.core.tenant import TenantSettings
from delen.engine.energy_admission import EnergyAdmission, UnlimitedEnergy
from delen.engine.executor import Executor
from delen.engine.guarantee_monitor import read_labels
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.errors import DelenError, Draining, InvalidInput
from delen.residency.interfaces import OpenBundle
from delen.residency.loader import ModelLoader
from delen.residency.registry import ModelRegistry
from delen.residency.state import MemoryStatus, SegmentStatus
from delen.scheduler.core import Scheduler

_LONGEST_DRAIN = 10.0
"""Seconds that a job without a deadline waits for segments to leave that it needs again."""


class Runtime:
    """One device's server without its HTTP. Safe to call from many threads.

    ``find`` gives the folders of bundles and ``open_bundle`` opens one. ``scheduler`` is a new one.
    ``admission`` is asked for the price of energy and for leave to spend it; by default nothing is
    controlled. With a cap on ``memory`` models are loaded on demand, and their segments take at
    most so many bytes.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[Path]],
        open_bundle: Callable[[Path], OpenBundle[Model]],
        observer: Observer,
        threads: int,
        scheduler: Scheduler,
        admission: EnergyAdmission | None = None,
        memory: float = inf,
    ) -> None:
        self.store: ModelRegistry[Model] = ModelRegistry(find, scheduler.lanes, memory)
        self._admission = admission or UnlimitedEnergy()
        self._worker = Executor(observer, threads, scheduler, self._admission)
        self._loader = ModelLoader(self.store, open_bundle, self._worker)
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(4)
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    def load(self, name: str) -> Model:
        """Have ``name`` ready; with a cap on memory, its first segment."""
        return self._loader.load(name)

    @property
    def rests(self) -> bool:
        """Whether the calling thread runs jobs, and none is queued or running."""
        return self._worker.rests

    def lanes(self) -> tuple[int, int]:
        """How many batches may run at once, and how many do."""
        return self._worker.lanes()

    def jobs(self, name: str) -> int:
        """How many jobs of model ``name`` are queued or running."""
        return self._worker.jobs_of(name)

    def unload(self, name: str) -> None:
        self._loader.unload(name)

    def input_of(self, name: str) -> InputSpec:
        """What ``name`` takes. ModelLoading if it is not loaded, and not on demand either."""
        return self._loader.manifest(name).input

    def segments(self, name: str) -> list[SegmentStatus] | None:
        """Where the segments of ``name`` are; None without a cap on memory."""
        return self._loader.segments(name) if self.store.is_capped else None

    def memory(self) -> MemoryStatus | None:
        """What all segments take; None without a cap on memory."""
        return self._loader.memory() if self.store.is_capped else None

    def change(self, model: Model, change: Callable[[Model], None]) -> None:
        """Let ``change`` give ``model`` other costs while nothing is decided by them."""
        self._worker.change_model(partial(change, model))

    def set_tenant(self, tenant: str, settings: TenantSettings) -> None:
        """From now on requests of ``tenant`` are served as its ``settings`` say."""
        self._worker.set_tenant(tenant, settings)

    def behind(self, tenants: Iterable[str]) -> set[str]:
        """Those of ``tenants`` that have used more than their share of the device."""
        return self._worker.behind(tenants)

    def submit(
        self,
        name: str,
        sample: NDArray[np.generic],
        bounds: Bounds,
        options: Options,
        arrived: float | None = None,
        waited: float = 0.0,
    ) -> Job:
        """Admit one input of the model's dtype and shape; the job's future gets the Result.

        ``arrived`` is when the request came in (``time.monotonic``), now if not given. For
        ``waited`` seconds since then it waited for others, which counts as their work does. Raises
        ModelNotFound, ModelLoading, InvalidInput, InfeasibleBound, BudgetExhausted, Overloaded
        or Draining.
        """
        if self._draining:
            raise Draining("the daemon is stopping", retry_after=1.0)
        try:
            return self._submit(name, sample, bounds, options, arrived, waited)
        except DelenError as error:
            self._admission.refused(options.tenant, error.code)
            raise

    def _submit(
        self,
        name: str,
        sample: NDArray[np.generic],
        bounds: Bounds,
        options: Options,
        arrived: float | None,
        waited: float,
    ) -> Job:
        arrived = time.monotonic() if arrived is None else arrived
        deadline = inf if bounds.max_latency is None else arrived + bounds.max_latency
        left = None if deadline == inf else deadline - time.monotonic()
        model = self._loader.find(name, None if options.on_infeasible == "best_effort" else left)
        _check_options(model, options)
        check_sample(model, sample)
        now = time.monotonic()
        ahead = self._worker.seconds_ahead(model, options.priority, options.tenant, deadline)
        waits, price = model.residency.waits(), self._admission.price(options.tenant)
        if self.store.is_capped:
            best = model.plans.plan(bounds, 0.0, model.monitor.holds, price)
            model.residency.record_use(best.exit)
        spent = now - arrived - waited
        plan_at = partial(self._plan_at, model, bounds, options, spent, waited + ahead, waits)
        plan, reserved = self._admission.admit(options.tenant, plan_at(price), plan_at)
        number = next(self._ids)
        job = Job(
            id=number,
            request_id=f"{self._id_prefix}-{number:x}",
            model=model,
            bounds=bounds,
            options=options,
            plan=plan,
            arrived=arrived,
            features=sample,
            reserved=reserved,
        )
        try:
            job.lease = model.residency.lease(plan.exit, min(_LONGEST_DRAIN, deadline - now))
            self._worker.submit(job)
        except BaseException:
            job.lease.end()
            self._admission.ended(job.share, reserved, 0.0, None)
            raise
        return job

    def _plan_at(
        self,
        model: Model,
        bounds: Bounds,
        options: Options,
        spent: float,
        ahead: float,
        waits: Sequence[float] | None,
        price: float,
    ) -> Plan:
        """A plan that counts what is ahead of it."""
        if not self._worker.capabilities.plans:
            return model.plans.unplanned(waits)
        best_effort = options.on_infeasible == "best_effort"
        return model.plans.admit(
            bounds, spent, ahead, model.monitor.holds, best_effort, price, waits
        )

    def backlog_seconds(self) -> float:
        """Seconds until all that waits now is done."""
        return self._worker.backlog_seconds()

    def preview(self, name: str, bounds: Bounds, tenant: str = "default") -> Preview:
        """What ``bounds`` would buy of model ``name`` for ``tenant`` on an idle device, at the
        present price of energy, without running it."""
        model = self._loader.find(name, None)
        self.change(model, lambda model: model.costs.relax(time.monotonic()))
        price, waits = self._admission.price(tenant), model.residency.waits()
        plan = model.plans.plan(bounds, 0.0, model.monitor.holds, price, waits)
        return Preview.of(name, plan, model.planner.points(model.costs))

    def feedback(self, name: str, labels: Mapping[str, object]) -> Feedback:
        """Take the right classes, as indices or names, of answers of ``name`` by request id.

        Raises ModelNotFound, ModelLoading, or InvalidInput naming what is no class; then none
        of them is taken.
        """
        model = self.store.ready(name)
        classes = read_labels(labels, model.bundle.manifest)
        return model.monitor.label(classes, model.planner.promises.error)

    def hand_over(self) -> None:
        """Have what was submitted begun, if it can be, before the calling thread does other work,
        which would hold that up."""
        self._worker.hand_over()

    def cancel(self, job: Job) -> None:
        self._worker.cancel(job)

    def start_draining(self) -> None:
        """Refuse new requests from now on."""
        self._draining = True

    def drain(self, timeout: float) -> bool:
        """Let admitted jobs answer for at most ``timeout`` seconds; True if all did."""
        self.start_draining()
        return self._worker.drain(timeout)

    def close(self) -> None:
        """Stop. Jobs that still wait are refused with Draining, running ones answer early."""
        self.start_draining()
        self._worker.close()
        self._loader.close()


def check_sample(model: Model, sample: NDArray[np.generic]) -> None:
    """InvalidInput unless ``sample`` has just the model's dtype and shape."""
    spec = model.bundle.manifest.input
    if sample.shape != spec.shape:
        raise InvalidInput(
            f"the input has shape {list(sample.shape)}; {model.name} takes {list(spec.shape)}",
            "input",
        )
    if sample.dtype != np.dtype(spec.dtype):
        raise InvalidInput(f"the input is {sample.dtype}; {model.name} takes {spec.dtype}", "input")
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        raise InvalidInput("the input holds numbers that are not finite", "input")


def _check_options(model: Model, options: Options) -> None:
    classes = model.bundle.manifest.classes
    if options.top_k > classes:
        raise InvalidInput(f"top_k is {options.top_k}; {model.name} has {classes} classes", "top_k")
