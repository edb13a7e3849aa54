"""Puts a served model together: bundle, backend, profile, planner, policy. Part of the
composition root; the daemon and the in-process engine both come through here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from delen.bundle.manifest import Bundle, load_bundle
from delen.engine.backends.base import Backend, Network
from delen.engine.guarantee_monitor import GuaranteeMonitor, MonitorSettings
from delen.engine.inputs import prepare_decoding
from delen.engine.model import Model, OpenedBundle, ReadyBundle
from delen.engine.observer import Observer
from delen.engine.runtime import Runtime
from delen.errors import ConfigError, DelenError, ProfileError
from delen.measure import interference as corun_profiler
from delen.measure import overhead as host_profiler
from delen.measure.segments import QUICK, measure_profile
from delen.profile.cost_model import CostModel
from delen.profile.device import identify
from delen.profile.energy_account import EnergyAccount
from delen.profile.profile import Device, HostCosts, Profile
from delen.profile.store import find_profile, save_profile, state_file
from delen.residency.lease import ALWAYS_RESIDENT, ModelResidency
from delen.scheduler.core import Scheduler
from policies.exit.bounds import ExitPolicy
from policies.plan.planner import Planner, PlannerSettings
from policies.plugins import EXIT_POLICIES, find_plugin

log = logging.getLogger("delen")

SHIPPED_BUNDLES = Path(__file__).resolve().parents[2] / "multiexit_models" / "bundles"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The exit policy by name with its own options, and what planners and watches are told.

    ``quantile`` is the one at which latencies are predicted.
    """

    exit: str = "bounds"
    options: Mapping[str, Any] = field(default_factory=dict)
    quantile: float = 0.99
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)


class ModelEnergy(Protocol):
    """What a model is told of energy: the power mode that its profile has to be of, and the
    account of that profile."""

    @property
    def mode(self) -> str: ...
    def account(self, profile: Profile) -> EnergyAccount: ...


class Assembler:
    """Opens bundles and makes Models of them, on one backend and a device with ``lanes``.

    ``make_scheduler`` makes one of so many lanes that takes all that comes: that of a first, quick
    profile, which serves.
    """

    def __init__(
        self,
        backend: Backend,
        energy: ModelEnergy,
        policies: PolicySettings,
        make_scheduler: Callable[[int], Scheduler],
        state: Path,
        root: Path,
        lanes: int = 1,
    ) -> None:
        self._backend = backend
        self._energy = energy
        self._policies = policies
        self._make_policy: Callable[..., Any] = find_plugin(EXIT_POLICIES, policies.exit)
        self._make_scheduler = make_scheduler
        self._state = state
        self._root = root
        self._lanes = lanes

    def open(self, path: Path) -> OpenedBundle:
        """Load and verify the bundle; none of its segments is loaded yet."""
        bundle = load_bundle(path)
        return OpenedBundle(bundle, self._backend.open(bundle), self._complete)

    def _complete(
        self, bundle: Bundle, network: Network, residency: ModelResidency, is_whole: bool
    ) -> Model | None:
        """The model of ``network``. Where it has no profile yet, one is measured if all its
        segments are there, else it is None."""
        profile = self._find_profile(bundle, network)
        if profile is None and is_whole:
            profile = self._measure_profile(bundle, network)
        if profile is None:
            return None
        return self._announced(self._model(bundle, network, profile, residency))

    def _announced(self, model: Model) -> Model:
        where = model.network.placement
        log.info(
            "model %s %s: %d exits, on %s (%s), %d x %d threads",
            model.name,
            model.bundle.manifest.version,
            model.exits,
            where.provider,
            model.costs.profile.device.processor,
            self._lanes,
            where.threads,
        )
        return model

    def _model(
        self, bundle: Bundle, network: Network, profile: Profile, residency: ModelResidency
    ) -> Model:
        prepare_decoding(bundle.manifest.input)
        policy = self._policy(len(bundle.exits))
        return Model(
            bundle=bundle,
            network=network,
            planner=Planner(bundle.calibration, self._policies.planner, policy.by_threshold),
            policy=policy,
            costs=CostModel(
                profile, self._energy.account(profile), self._policies.quantile, self._lanes
            ),
            monitor=GuaranteeMonitor(bundle.name, self._policies.monitor),
            residency=residency,
        )

    def reprofile(self, model: Model) -> None:
        """Give ``model`` the profile of the power mode that the device is in by now, or say that
        there is none: then the old one goes on, marked as stale."""
        costs, mode, device = model.costs, self._energy.mode, self._device(model.network)
        if device == costs.profile.device:
            costs.use(costs.profile, costs.energy)
            return
        profile = find_profile(self._state, model.bundle, device)
        if profile is not None:
            costs.use(profile, self._energy.account(profile))
            log.info("model %s: the profile is now that of power mode %s", model.name, mode)
            return
        stale = (
            f"measured in power mode {costs.profile.device.power_mode}, but the device is in "
            f"{mode}, of which there is no profile: run delen profile"
        )
        costs.use(costs.profile, costs.energy, stale)
        log.warning("model %s: its profile was %s", model.name, stale)

    def _device(self, network: Network) -> Device:
        where = network.placement
        return identify(self._root, where.provider, where.threads, where.runtime, self._energy.mode)

    def _policy(self, exits: int) -> ExitPolicy:
        policy: ExitPolicy = self._make_policy(exits, **dict(self._policies.options))
        if not isinstance(getattr(policy, "by_threshold", None), bool):
            raise ConfigError(
                f"the exit policy {self._policies.exit!r} must say in by_threshold, true or false, "
                "whether it stops where the plan's threshold does"
            )
        return policy

    def _find_profile(self, bundle: Bundle, network: Network) -> Profile | None:
        profile = find_profile(self._state, bundle, self._device(network))
        if profile is None:
            return None
        if profile.host is None and len(profile.segments) > 1:
            log.info(
                "the profile of %s does not say what serving takes beside its segments: "
                "`delen profile` measures it, and bounds that leave little room are kept better",
                bundle.name,
            )
        if len(profile.corun or (1.0,)) < self._lanes:
            log.info(
                "the profile of %s does not say how much %d instances slow each other down: "
                "that is learnt while they serve; `delen profile` measures it",
                bundle.name,
                self._lanes,
            )
        return profile

    def _measure_profile(self, bundle: Bundle, network: Network) -> Profile:
        device = self._device(network)
        log.info("no profile of %s for this device yet: measuring a quick one", bundle.name)
        profile = measure_profile(bundle, network, device, QUICK)
        if self._lanes > 1:
            rounds = corun_profiler.QUICK_ROUNDS
            corun = corun_profiler.measure_corun(bundle, network, self._lanes, rounds)
            profile = replace(profile, corun=corun)
        profile = replace(profile, host=self._measure_host(bundle, network, profile))
        file = state_file(self._state, bundle, device)
        try:
            save_profile(profile, file)
            log.info("kept it as %s; `delen profile` measures a thorough one", file)
        except ProfileError as error:
            log.warning("it will be measured again at the next start: %s", error)
        return profile

    def _measure_host(self, bundle: Bundle, network: Network, profile: Profile) -> HostCosts | None:
        serve = partial(self._serving, bundle, network, profile)
        try:
            return host_profiler.measure_host(serve, bundle, profile, host_profiler.QUICK)
        except DelenError as error:
            log.warning("what serving %s takes beside it is unknown: %s", bundle.name, error)
            return None

    @contextmanager
    def _serving(
        self, bundle: Bundle, network: Network, profile: Profile, observer: Observer
    ) -> Iterator[Runtime]:
        """An engine of its own on one lane, as the model will be served."""
        model = self._model(bundle, network, profile, ALWAYS_RESIDENT)
        scheduler, threads = self._make_scheduler(1), network.placement.threads
        runtime = Runtime(
            lambda: [bundle.path], lambda _: ReadyBundle(model), observer, threads, scheduler
        )
        try:
            yield runtime
        finally:
            runtime.close()
