"""Serving as one object: models, plans, admission and execution."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec, Manifest
from delen.core.bounds import Bounds, Options
from delen.core.crash_guard import CrashGuard
from delen.core.dispatch import DispatchPolicy
from delen.core.events import EventBus
from delen.core.guarantee import Feedback
from delen.core.handover import Past
from delen.core.plan import Plan, Preview
from delen.core.tenant import TenantSettings
from delen.engine.admission import Admission
from delen.engine.backends.base import Features
from delen.engine.directives import Directives
from delen.engine.energy_admission import EnergyAdmission, UnlimitedEnergy
from delen.engine.executor import LOCAL, Executor
from delen.engine.guarantee_monitor import read_labels
from delen.engine.handover import (
    check_alone,
    check_past,
    is_handed_over,
    plans_from,
    plans_until,
)
from delen.engine.health import SEGMENT_HANGS, EngineHealth
from delen.engine.inputs import named_shapes
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.peers import Peers, PlansWithPeers
from delen.engine.standing import Standing, StandingSource
from delen.errors import BudgetExhausted, DelenError, Draining, InvalidInput, Overloaded
from delen.residency.interfaces import OpenBundle
from delen.residency.loader import ModelLoader
from delen.residency.registry import ModelRegistry
from delen.residency.state import MemoryStatus, SegmentStatus
from delen.scheduler.conditions import Conditions
from delen.scheduler.core import Scheduler
from delen.scheduler.plan_cache import PlanSource


class Runtime:
    """One device's server without its HTTP. Many threads may call it.

    ``find`` gives the folders of bundles and ``open_bundle`` opens one. ``scheduler`` is a new one.
    ``energy`` sets the price of energy and admits what requests may spend; by default nothing is
    limited. With a cap on ``memory``, in bytes, models are loaded on demand. What happens is
    published as ``events``. ``node`` is its name in the receipts of jobs on several nodes;
    ``peers`` go on with jobs whose bounds it cannot keep. A segment that has not returned after
    ``segment_hangs`` seconds hangs. ``guard`` knows the models that crash the process.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[Path]],
        open_bundle: Callable[[Path], OpenBundle[Model]],
        observer: Observer,
        threads: int,
        scheduler: Scheduler,
        energy: EnergyAdmission | None = None,
        memory: float = inf,
        events: EventBus | None = None,
        node: str = LOCAL,
        peers: Peers | None = None,
        segment_hangs: float = SEGMENT_HANGS,
        guard: CrashGuard | None = None,
    ) -> None:
        self.events = events or EventBus()
        self.store: ModelRegistry[Model] = ModelRegistry(find, scheduler.lanes, memory, self.events)
        self.node = node
        self._peers = peers
        self._energy = energy or UnlimitedEnergy()
        self._executor = Executor(
            observer, threads, scheduler, self._energy, node, peers, segment_hangs, guard
        )
        self._loader = ModelLoader(self.store, open_bundle, self._executor, guard)
        self.directives = Directives(self._loader.keep)
        self._admission = Admission(self._executor, scheduler, self._energy, self.directives)
        self._standing = StandingSource(self._executor, self.store, self._loader, self._energy)
        self._ids = itertools.count(1)
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    def load(self, name: str, is_trusted: bool = True) -> Model:
        """Load ``name``; with a cap on memory, its first segment. One that crashed the process is
        loaded only if it ``is_trusted``."""
        return self._loader.load(name, is_trusted)

    @property
    def idle_since(self) -> float | None:
        """When the last job ended (``time.monotonic``); None while one is queued or running."""
        return self._executor.idle_since

    @property
    def health(self) -> EngineHealth:
        """What hangs in the engine, and what keeps failing."""
        return self._executor.health

    def leave_hanging(self, now: float) -> bool:
        """Go on without what should have returned by ``now``; whether there is any. To be called
        every now and then."""
        return self._executor.leave_hanging(now)

    def use_dispatch(self, policy: DispatchPolicy) -> None:
        """``policy``, which is new, decides from now on what runs; the default where it fails."""
        self._executor.use_dispatch(policy)

    def dispatch(self) -> tuple[str, int]:
        """The dispatch policy in force, and how often policies failed."""
        return self._executor.dispatch()

    def lanes(self) -> tuple[int, int]:
        """How many batches may run at once, and how many do."""
        return self._executor.lanes()

    def handovers(self) -> Mapping[tuple[str, str], int]:
        """How many jobs were handed over, by peer and by what became of them: ``answered`` there,
        or ``stayed`` here."""
        return self._executor.handovers()

    def jobs(self, name: str) -> int:
        """How many jobs of model ``name`` are queued or running."""
        return self._executor.jobs_of(name)

    def unload(self, name: str) -> None:
        self._loader.unload(name)

    def input_of(self, name: str) -> InputSpec:
        """The input of ``name``. ModelLoading if it is neither loaded nor loaded on demand."""
        return self.manifest_of(name).input

    def manifest_of(self, name: str) -> Manifest:
        """What ``name`` is, or will be. ModelLoading as ``input_of``."""
        return self._loader.manifest(name)

    def digest_of(self, name: str) -> str | None:
        """The SHA-256 of the bundle of ``name`` that is served; None while none is open."""
        model = self.store.entry(name).model
        return None if model is None else model.bundle.digest

    def standing(self) -> Standing:
        """What the device says of itself to a fleet. Draining once no request is admitted."""
        self._check_draining()
        return self._standing.read()

    def utilisation(self) -> float:
        """The share of all lanes that was busy in the last seconds."""
        return self._executor.read_load(()).utilisation

    def missing(self, name: str) -> str | None:
        """Why model ``name`` is not in memory whole; None if it is."""
        return self._loader.missing(name)

    def segments(self, name: str) -> list[SegmentStatus] | None:
        """Where the segments of ``name`` are; None without a cap on memory."""
        return self._loader.segments(name) if self.store.is_capped else None

    def memory(self) -> MemoryStatus | None:
        """What all segments take; None without a cap on memory."""
        return self._loader.memory() if self.store.is_capped else None

    def change(self, model: Model, change: Callable[[Model], None]) -> None:
        """Let ``change`` give ``model`` other costs while no decision is made."""
        with self._executor.lock:
            change(model)

    def set_tenant(self, tenant: str, settings: TenantSettings) -> None:
        """From now on requests of ``tenant`` are served as its ``settings`` say."""
        self._executor.set_tenant(tenant, settings)

    def behind(self, tenants: Iterable[str]) -> set[str]:
        """Those of ``tenants`` that have used more than their share of the device."""
        return self._executor.behind(tenants)

    def submit(
        self,
        name: str,
        sample: NDArray[np.generic],
        bounds: Bounds,
        options: Options,
        arrived: float | None = None,
        waited: float = 0.0,
    ) -> Job:
        """As ``submit_batch``, of one input."""
        return self.submit_batch(name, (sample,), bounds, options, arrived, waited)[0]

    def submit_batch(
        self,
        name: str,
        samples: Sequence[NDArray[np.generic]],
        bounds: Bounds,
        options: Options,
        arrived: float | None = None,
        waited: float = 0.0,
        receiving: float | None = None,
    ) -> list[Job]:
        """Admit inputs of the model's dtype and of one of its shapes, all or none; the futures of
        their jobs get the Results. Once one has failed, the others end.

        ``arrived`` is when the request came in (``time.monotonic``), now if not given. Since then
        it ``waited`` for others for so many seconds, which count as their work does, and was
        ``receiving`` its body for so many, if that is known. Raises
        ModelNotFound, ModelLoading, InvalidInput, InfeasibleBound, BatchTooLarge, BudgetExhausted,
        Overloaded or Draining. Here every refusal is counted.
        """
        arrived = time.monotonic() if arrived is None else arrived
        with self._counting_refusals(options):
            model = self._find(name, bounds, options, arrived)
            for sample in samples:
                check_sample(model, sample)
            at_size = model
            if model.smaller:
                at_size = model.accepting([sample.shape for sample in samples])
            plans: PlanSource | None = None
            if options.suspend_at is not None:
                check_alone(samples)
                plans = plans_until(at_size, options.suspend_at)
            elif self._peers is not None and len(samples) == 1 and is_handed_over(at_size, bounds):
                plans = PlansWithPeers(at_size, model.plans, self._peers)

            def make(sample: NDArray[np.generic]) -> Job:
                job = self._job(at_size, bounds, options, arrived, sample, receiving=receiving)
                job.plans = plans
                return job

            lead, *others = samples
            return self._admission.admit(
                make(lead), len(samples), lambda: [make(sample) for sample in others], waited
            )

    def resume(
        self,
        name: str,
        features: NDArray[np.float32],
        past: Past,
        bounds: Bounds,
        options: Options,
        arrived: float | None = None,
        waited: float = 0.0,
    ) -> Job:
        """Go on with a job of another node after the exit of its ``past``, from its ``features``
        there. Otherwise as ``submit``; raises BundlesDiffer, too."""
        arrived = time.monotonic() if arrived is None else arrived
        with self._counting_refusals(options):
            model = self._find(name, bounds, options, arrived - past.seconds)
            at_size = check_past(model, past, features)
            taken = at_size.network.take_in(features)
            job = self._job(at_size, bounds, options, arrived, taken, past)
            job.plans = plans_from(at_size, past)
            return self._admission.admit(job, 1, tuple, waited)[0]

    @contextmanager
    def _counting_refusals(self, options: Options) -> Iterator[None]:
        try:
            yield
        except DelenError as error:
            self._energy.refused(options.tenant, error.code)
            raise

    def _find(self, name: str, bounds: Bounds, options: Options, began: float) -> Model:
        """The model of a request that ``began`` then, loaded if there is time for that."""
        self._check_draining()
        cap, left = bounds.max_latency, None
        if cap is not None and options.on_infeasible != "best_effort":
            left = began + cap - time.monotonic()
        model = self._loader.find(name, left)
        _check_options(model, options)
        return model

    def _job(
        self,
        model: Model,
        bounds: Bounds,
        options: Options,
        arrived: float,
        features: Features,
        past: Past | None = None,
        receiving: float | None = None,
    ) -> Job:
        number, request_id = next(self._ids), secrets.token_hex(8)
        return Job(
            number,
            request_id,
            model,
            bounds,
            options,
            arrived,
            features,
            receiving,
            past=past,
        )

    def charge(self, tenant: str, seconds: float) -> None:
        """``tenant`` has used ``seconds`` of a processor to have its inputs read, which count as
        those of its requests do."""
        self._admission.charge(tenant, seconds)

    def knows(self, tenant: str) -> bool:
        """Whether ``tenant`` has a share of its own. It takes no lock."""
        return self._admission.knows(tenant)

    def is_free(self, seconds: float) -> bool:
        """Whether submitting waits for nobody longer than ``seconds``: no model is opened for it,
        and nothing holds the engine's lock that long, as a policy that hangs does."""
        return not self.store.is_capped and self.is_unlocked(seconds)

    def is_unlocked(self, seconds: float) -> bool:
        """Whether nothing holds the engine's lock longer than ``seconds``."""
        lock = self._executor.lock
        if not lock.acquire(timeout=seconds):
            return False
        lock.release()
        return True

    def backlog_seconds(self) -> float:
        """Seconds until everything that waits now is done."""
        return self._executor.backlog_seconds()

    def preview(self, name: str, bounds: Bounds, tenant: str = "default") -> Preview:
        """What ``bounds`` would buy of model ``name`` for ``tenant`` on an idle device, at the
        present price of energy and within its limits, without running it."""
        model = self._loader.find(name, None)
        self.change(model, lambda model: model.relax(time.monotonic()))
        waits, refusal = model.residency.waits(), None
        terms = self.directives.terms(tenant)

        def plan_at(price: float) -> Plan:
            holds = model.monitor.holds
            at = Conditions(guaranteed=holds, price=price, waits=waits, terms=terms)
            return model.plans.plan(bounds, at)

        plan = plan_at(self._energy.price(tenant) + terms.per_joule)
        try:
            if plan.infeasible is None:
                plan = self._energy.preview(tenant, plan, plan_at)
        except (BudgetExhausted, Overloaded) as error:
            refusal = error
        return Preview.of(name, plan, model.plans.points(), refusal)

    def feedback(self, name: str, labels: Mapping[str, object]) -> Feedback:
        """Accept the right classes, as indices or names, of answers of ``name`` by request id.

        Raises ModelNotFound, ModelLoading, or InvalidInput naming what is not a class; then it
        accepts none of them.
        """
        model = self.store.ready(name)
        classes = read_labels(labels, model.bundle.manifest)
        return model.monitor.label(classes, model.promised_error)

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End ``jobs`` of one request, which nobody waits for any more. Those that wait for room
        come last in it, and are given none. One lock covers all, or they
        would run meanwhile."""
        with self._executor.lock:
            for job in reversed(jobs):
                self._executor.cancel(job)

    def _check_draining(self) -> None:
        if self._draining:
            raise Draining("the daemon is stopping", retry_after=1.0)

    def start_draining(self) -> None:
        """Refuse new requests from now on."""
        if not self._draining:
            self._draining = True
            self.events.publish("draining")

    def drain(self, timeout: float) -> bool:
        """Let admitted jobs answer for at most ``timeout`` seconds; True if all did."""
        self.start_draining()
        return self._executor.drain(timeout)

    def close(self) -> None:
        """Stop. Waiting jobs without an answer are refused (Draining); all others answer early."""
        self.start_draining()
        self._executor.close()
        self._loader.close()


def check_sample(model: Model, sample: NDArray[np.generic]) -> None:
    """InvalidInput unless ``sample`` has the model's dtype and one of its shapes, and finite
    numbers."""
    spec = model.bundle.manifest.input
    if not spec.accepts(sample.shape):
        raise InvalidInput(
            f"the input has shape {list(sample.shape)}; {model.name} accepts {named_shapes(spec)}",
            "input",
        )
    if sample.dtype != np.dtype(spec.dtype):
        raise InvalidInput(
            f"the input is {sample.dtype}; {model.name} accepts {spec.dtype}", "input"
        )
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        raise InvalidInput("the input holds numbers that are not finite", "input")


def _check_options(model: Model, options: Options) -> None:
    classes = model.bundle.manifest.classes
    if options.top_k > classes:
        raise InvalidInput(f"top_k is {options.top_k}; {model.name} has {classes} classes", "top_k")
