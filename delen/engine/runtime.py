"""Serving as one object: models, plans, admission and the worker behind them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.bounds import Bounds, Options
from delen.engine.desk import EnergyDesk, IdleDesk
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.store import ModelStore
from delen.engine.watch import read_labels
from delen.engine.worker import Worker
from delen.errors import Draining, InvalidInput
from delen.guarantee import Feedback
from delen.plan import Plan, Preview
from delen.scheduler.core import Scheduler


class Runtime:
    """One device's server without its HTTP. Safe to call from many threads.

    ``find`` gives the folders of bundles and ``load`` makes a Model of one. ``scheduler`` is
    a new one. ``desk`` is asked for the price of energy and for leave to spend it; by default
    nothing is controlled.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[Path]],
        load: Callable[[Path], Model],
        observer: Observer,
        threads: int,
        scheduler: Scheduler,
        desk: EnergyDesk | None = None,
    ) -> None:
        self.store = ModelStore(find, load)
        self._desk = desk or IdleDesk()
        self._worker = Worker(observer, threads, scheduler, self._desk)
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(4)
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    def load(self, name: str) -> Model:
        model = self.store.load(name)
        self._worker.add_model(model)
        return model

    def jobs(self, name: str) -> int:
        """How many jobs of model ``name`` are queued or running."""
        return self._worker.jobs_of(name)

    def unload(self, name: str) -> None:
        self.store.unload(name, self._worker.remove_model)

    def change(self, model: Model, change: Callable[[Model], None]) -> None:
        """Let ``change`` give ``model`` other costs while nothing is decided by them."""
        self._worker.change_model(partial(change, model))

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
        model = self.store.ready(name)
        _check_options(model, options)
        check_sample(model, sample)
        now = time.monotonic()
        model.costs.relax(now)
        arrived = now if arrived is None else arrived
        deadline = inf if bounds.max_latency is None else arrived + bounds.max_latency
        ahead = self._worker.seconds_ahead(options.priority, options.tenant, deadline)
        spent = now - arrived - waited
        plan_at = partial(self._plan_at, model, bounds, options, spent, waited + ahead)
        plan = plan_at(self._desk.price(options.tenant))
        plan, reserved = self._desk.admit(options.tenant, plan, plan_at)
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
            self._worker.submit(job)
        except Draining:
            self._desk.ended(job.share, reserved, 0.0, None)
            raise
        return job

    def _plan_at(
        self,
        model: Model,
        bounds: Bounds,
        options: Options,
        spent: float,
        ahead: float,
        price: float,
    ) -> Plan:
        """A plan that counts what is ahead of it."""
        if not self._worker.manners.plans:
            return model.plans.unplanned()
        best_effort = options.on_infeasible == "best_effort"
        return model.plans.admit(bounds, spent, ahead, model.watch.holds, best_effort, price)

    def backlog_seconds(self) -> float:
        """Seconds until all that waits now is done."""
        return self._worker.backlog_seconds()

    def preview(self, name: str, bounds: Bounds, tenant: str = "default") -> Preview:
        """What ``bounds`` would buy of model ``name`` for ``tenant`` on an idle device, at the
        present price of energy, without running it."""
        model = self.store.ready(name)
        model.costs.relax(time.monotonic())
        plan = model.plans.plan(bounds, 0.0, model.watch.holds, self._desk.price(tenant))
        return Preview.of(name, plan, model.planner.points(model.costs))

    def feedback(self, name: str, labels: Mapping[str, object]) -> Feedback:
        """Take the right classes, as indices or names, of answers of ``name`` by request id.

        Raises ModelNotFound, ModelLoading, or InvalidInput naming what is no class; then none
        of them is taken.
        """
        model = self.store.ready(name)
        classes = read_labels(labels, model.bundle.manifest)
        return model.watch.label(classes, model.planner.promises.error)

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
