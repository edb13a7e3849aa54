"""From a bundle's folder to a served model: backend, profile, planner, policy. Part of the
composition root; the daemon and the in-process engine both come through here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from delen.bundle.manifest import Bundle, load_bundle
from delen.core.events import EventBus
from delen.daemon.profiles import DeviceProfiles, report_busy
from delen.engine.backends.base import Backend, Network
from delen.engine.guarantee_monitor import GuaranteeMonitor, MonitorSettings
from delen.engine.inputs import prepare_decoding
from delen.engine.model import Model, OpenedBundle
from delen.errors import ConfigError
from delen.measure import interference, overhead
from delen.measure.disturbance import ProcessorWatch, SpareLane, worse
from delen.measure.energy import keep_energies, measure_energy
from delen.measure.segments import QUICK, measure_profile, measure_rough
from delen.profile.cost_model import CostModel
from delen.profile.energy_account import EnergyAccount
from delen.profile.profile import Profile
from delen.residency.lease import ALWAYS_RESIDENT, ModelResidency
from delen.scheduler.core import Scheduler
from policies.exit.bounds import ExitPolicy
from policies.exit.learning import LEARNING, does_learn, own_policy
from policies.plan.planner import NOT_HELD_OUT, Planner, PlannerSettings
from policies.plugins import EXIT_POLICIES, find_plugin
from power.metering.blocks import BlockPlan
from power.modes.modes import steady_key
from power.sources.sampler import Sampler

log = logging.getLogger("delen")

SHIPPED_BUNDLES = Path(__file__).resolve().parents[2] / "multiexit_models" / "bundles"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The exit policy by name with its own options, and the settings of planners and monitors.

    Latencies are predicted at ``quantile``.
    """

    exit: str = "bounds"
    options: Mapping[str, Any] = field(default_factory=dict)
    quantile: float = 0.99
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)


def exit_maker(policies: PolicySettings) -> Callable[[int], ExitPolicy]:
    """What makes the exit policy for a network with so many exits."""
    make_policy = find_plugin(EXIT_POLICIES, policies.exit)

    def make(exits: int) -> ExitPolicy:
        policy: ExitPolicy = make_policy(exits, **dict(policies.options))
        if not isinstance(getattr(policy, "by_threshold", None), bool):
            raise ConfigError(
                f"the exit policy {policies.exit!r} must say in by_threshold, true or false, "
                "whether it stops where the plan's threshold does"
            )
        return policy

    return make


class ModelEnergy(Protocol):
    """What a model needs to know of energy: the power mode that its profile has to be of, and the
    account of that profile."""

    @property
    def mode(self) -> str: ...
    def account(self, profile: Profile) -> EnergyAccount: ...


class ModelBuilder:
    """Opens bundles and makes Models of them, on one backend and a device with ``lanes``, and
    measures the profiles that this takes.

    ``make_scheduler`` makes a scheduler of so many lanes that limits no backlog: it schedules the
    requests by which the overhead of serving is measured. Where ``is_rough_first``, a bundle that
    has no profile yet is not measured before it serves, but given a rough one.
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
        events: EventBus | None = None,
        is_rough_first: bool = False,
    ) -> None:
        self._backend = backend
        self._energy = energy
        self._policies = policies
        self._make_policy = exit_maker(policies)
        self._make_scheduler = make_scheduler
        self._lanes = lanes
        self._root = root
        self._events = events
        self._is_rough_first = is_rough_first
        self._profiles = DeviceProfiles(state, root, lambda: energy.mode, lanes)

    def open(self, path: Path) -> OpenedBundle:
        """Load and verify the bundle; none of its segments is loaded yet."""
        bundle = load_bundle(path)
        return OpenedBundle(bundle, self._backend.open(bundle), self._complete)

    def _complete(
        self, bundle: Bundle, network: Network, residency: ModelResidency, is_whole: bool
    ) -> Model | None:
        """The model of ``network``, at all its sizes. Where one of them has no profile yet, it is
        measured if all segments are there, else the model is None."""
        profiles = []
        networks = (network, *network.smaller)
        for each, runs_on in zip(bundle.sizes, networks, strict=True):
            profile = self._profiles.find(each, runs_on)
            if profile is None and is_whole:
                profile = self._measure_first(each, runs_on)
            if profile is None:
                return None
            profiles.append(profile)
        group = bundle.calibration.largest_group
        monitor = GuaranteeMonitor(bundle.name, self._policies.monitor, group, self._events)
        smaller: tuple[Model, ...] = ()
        for parts in reversed(list(zip(bundle.sizes, networks, profiles, strict=True))):
            smaller = (self._serve(*parts, residency, monitor, smaller), *smaller)
        return self._announced(smaller[0])

    def _announced(self, model: Model) -> Model:
        where = model.network.placement
        log.info(
            "model %s %s: %d exits%s, on %s (%s), %d x %d threads",
            model.name,
            model.bundle.manifest.version,
            model.exits,
            f" at {len(model.sizes)} input sizes" if model.smaller else "",
            where.provider,
            model.costs.profile.device.processor,
            self._lanes,
            where.threads,
        )
        if model.bundle.manifest.held_out == "unknown":
            log.warning("model %s: %s", model.name, NOT_HELD_OUT)
        return model

    def _serve(
        self,
        bundle: Bundle,
        network: Network,
        profile: Profile,
        residency: ModelResidency,
        monitor: GuaranteeMonitor,
        smaller: tuple[Model, ...],
    ) -> Model:
        prepare_decoding(bundle.manifest.input)
        account, quantile = self._energy.account(profile), self._policies.quantile
        costs = CostModel(profile, account, quantile, self._lanes)
        return self._model(bundle, network, costs, monitor, residency, smaller)

    def _model(
        self,
        bundle: Bundle,
        network: Network,
        costs: CostModel,
        monitor: GuaranteeMonitor,
        residency: ModelResidency,
        smaller: tuple[Model, ...] = (),
    ) -> Model:
        policy = self._make_policy(len(bundle.exits))
        planner = Planner(
            bundle.calibration,
            self._policies.planner,
            policy.by_threshold,
            bundle.manifest.held_out != "unknown",
            bundle.size,
            len(bundle.manifest.all_sizes) or 1,
        )
        policy = own_policy(policy, planner)
        missing = [name for name in LEARNING if not hasattr(policy, name)]
        if does_learn(policy) and missing:
            raise ConfigError(
                f"the exit policy {self._policies.exit!r} has learn, so it must have {missing[0]}"
            )
        return Model(bundle, network, planner, policy, costs, monitor, residency, smaller)

    def follow_mode(self, model: Model) -> Callable[[Model], None]:
        """What gives ``model`` the profile of the power mode that the device is in by now, which is
        looked for here. Where there is none, the old one stays, marked as stale."""
        costs, mode = model.costs, self._energy.mode
        known = costs.measured
        if self._profiles.device(model.network) == known.device:
            return lambda model: costs.use(known, costs.energy)
        profile = self._profiles.find(model.bundle, model.network)
        if profile is not None:
            log.info("model %s: the profile is now that of power mode %s", model.variant, mode)
            return self.adopt(profile)
        stale = (
            f"measured in power mode {known.device.power_mode}, but the device is in {mode}, "
            "which has no profile yet: run delen profile"
        )
        log.warning("model %s: its profile was %s", model.variant, stale)
        return lambda model: costs.use(known, costs.energy, stale)

    def adopt(self, profile: Profile) -> Callable[[Model], None]:
        """What has a model served by ``profile`` from now on."""
        account = self._energy.account(profile)
        return lambda model: model.costs.use(profile, account)

    def _measure_first(self, bundle: Bundle, network: Network) -> Profile:
        device = self._profiles.device(network)
        if self._is_rough_first:
            log.info(
                "no profile of %s for this device yet: a rough one serves until a quick one is "
                "measured, while nothing is served",
                bundle.variant,
            )
            return measure_rough(bundle, network, device)
        log.info("no profile of %s for this device yet: measuring a quick one", bundle.variant)
        profile = measure_profile(bundle, network, device, QUICK)
        profile = replace(profile, interference=self._interference(bundle, network))
        report_busy(profile)
        self._profiles.keep(bundle, profile)
        return profile

    def _interference(self, bundle: Bundle, network: Network) -> tuple[float, ...] | None:
        if self._lanes == 1:
            return None
        rounds = interference.QUICK_ROUNDS
        return interference.measure_interference(bundle, network, self._lanes, rounds)

    def measure_again(self, model: Model, gives_way: Callable[[], bool]) -> Profile:
        """What of the profile of ``model`` is wrong, rough or unknown, measured while the model may
        serve: on lanes of its own, which keep no memory. Raises GaveWay once ``gives_way``."""
        profile = model.costs.measured
        if profile.busy or profile.rough:
            profile = self.measure_segments(model, gives_way)
        spare = SpareLane(model.network, self._lanes)
        try:
            return self.with_host(model.bundle, spare, profile, model.costs.energy, gives_way)
        finally:
            model.network.free_lane(self._lanes)

    def measure_segments(self, model: Model, gives_way: Callable[[], bool]) -> Profile:
        """As ``measure_again``, what the segments take alone; all else stays as it was."""
        known = model.costs.measured
        spare = SpareLane(model.network, self._lanes, gives_way)
        try:
            measured = measure_profile(model.bundle, spare, known.device, QUICK)
            factors = known.interference
            if known.rough:
                factors = self._interference(model.bundle, spare)
        finally:
            for lane in range(self._lanes, 2 * self._lanes):
                model.network.free_lane(lane)
        measured = replace(measured, interference=factors, host=known.host)
        return keep_energies(measured, known)

    def measure_host(self, model: Model, gives_way: Callable[[], bool]) -> Profile:
        """The profile of ``model``, which serves nobody yet, with what serving it takes. Raises
        GaveWay once ``gives_way``."""
        costs = model.costs
        return self.with_host(model.bundle, model.network, costs.measured, costs.energy, gives_way)

    def measure_energy(
        self,
        model: Model,
        meter: Sampler,
        gives_way: Callable[[], bool],
        wait: Callable[[float], None],
        plan: BlockPlan,
    ) -> Profile:
        """The profile of ``model`` with the energies of its segments, as ``meter`` measures them.
        Raises GaveWay once ``gives_way``, or from ``wait``; ProfileError where it goes wrong."""
        spare, known = SpareLane(model.network, self._lanes, gives_way), model.costs.measured
        steady = partial(steady_key, self._root)
        try:
            profile, notes = measure_energy(
                model.bundle, spare, known, meter, steady, plan, wait=wait
            )
        finally:
            model.network.free_lane(self._lanes)
        for note in notes:
            log.info("model %s: %s", model.name, note)
        return profile

    def keep(self, model: Model, profile: Profile) -> None:
        """Keep ``profile``, by which ``model`` is not served yet, for the next start."""
        if not model.costs.profile.busy:
            report_busy(profile)
        self._profiles.keep(model.bundle, profile)

    def with_host(
        self,
        bundle: Bundle,
        network: Network,
        profile: Profile,
        account: EnergyAccount,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> Profile:
        """``profile`` with what serving takes beside its segments, as far as that can be found
        out; as thoroughly as the profile was measured. Raises GaveWay once ``gives_way``."""
        costs = CostModel(replace(profile, host=None), account, self._policies.quantile)
        model = self._model(bundle, network, costs, GuaranteeMonitor(), ALWAYS_RESIDENT)
        effort = overhead.QUICK if profile.quick else overhead.THOROUGH
        watch = ProcessorWatch()
        host = overhead.measure_host(model, self._make_scheduler(1), effort, gives_way)
        return replace(profile, host=host, measured=worse(profile.measured, watch.disturbance()))
