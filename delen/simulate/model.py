"""A simulated model: what plans and decides for it, and what its exits truly answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from delen.bundle.calibration import Calibration
from delen.core.plan import Decision, ExitView
from delen.core.result import Reason
from delen.core.variant import Size
from delen.profile.cost_model import CostModel
from delen.profile.energy_account import EnergyAccount, Spent
from delen.profile.profile import HostCosts, Profile, SegmentCost
from delen.scheduler.exit_forecast import ExitForecast
from delen.scheduler.exit_guard import guarded_decision
from delen.scheduler.exit_view import ExitViewBuilder
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.plan_cache import BestSize, Plans, PlanSource
from delen.simulate.device import durations
from delen.simulate.full_runs import FullRuns
from policies.exit.bounds import ExitPolicy
from policies.exit.learning import does_learn, own_policy
from policies.plan.planner import Planner


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedModel:
    """``calibration`` is what requests draw their samples from: the table that ``planner`` was made
    from, unless inputs have changed since.

    ``level`` is the quantile at which latencies are predicted; ``macs`` are cumulative
    multiply-adds of the exits, 0 if unknown. Everything is planned by ``profile``; ``become`` is
    the true profile if the device has drifted away from it. ``smaller`` is the same model at the
    smaller input sizes to which requests may be scaled down, largest first; sample i is the same
    image in the calibration of each. ``name`` is then that of the size, too.
    """

    name: str
    profile: Profile
    energy: EnergyAccount
    level: float
    calibration: Calibration
    planner: Planner
    policy: ExitPolicy
    macs: tuple[int, ...]
    max_batch: int
    become: Profile | None = None
    smaller: tuple[SimulatedModel, ...] = ()
    forecast: ExitForecast = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "forecast", ExitForecast(self.planner.calibration))

    @property
    def sizes(self) -> tuple[SimulatedModel, ...]:
        return (self, *self.smaller)

    @property
    def host(self) -> HostCosts:
        """What serving takes beside the segments; nothing if the profile does not know it."""
        return (self.become or self.profile).host_costs

    def costs(self, lanes: int = 1) -> CostModel:
        """Predicted costs by ``profile``, before anything is learnt."""
        return CostModel(self.profile, self.energy, self.level, lanes)

    @property
    def actual(self) -> Profile:
        """What segments truly take while requests are served."""
        return (self.become or self.profile).as_served()


class ModelInPlay:
    """What one run on a device with ``lanes`` knows and learns of a model. The part
    ``audit_fraction`` of its early answers is audited, where the exit policy learns from that."""

    def __init__(self, model: SimulatedModel, lanes: int = 1, audit_fraction: float = 0.0) -> None:
        self.name = model.name
        self.host = model.host
        self._energy = model.energy
        self._usual: dict[tuple[int, int], tuple[SegmentCost, float]] = {}
        self.policy = own_policy(model.policy, model.planner)
        self.costs = model.costs(lanes)
        self.size = model.planner.size
        self.sizes = (self, *(ModelInPlay(each, lanes, audit_fraction) for each in model.smaller))
        own = self.own_plans = Plans(model.planner, self.costs)
        others = [each.own_plans for each in self.sizes[1:]]
        self.plans: PlanSource = BestSize([own, *others]) if others else own
        self.exit_views = ExitViewBuilder(model.planner, self.costs, model.macs)
        known = model.planner.calibration
        self.view = ScheduledModel(self.costs, known, model.max_batch, model.forecast)
        self.exits = model.calibration.exits
        table = model.calibration
        self.confidence: list[list[float]] = table.confidence.tolist()
        self.correct: list[list[bool]] = table.correct.tolist()
        self._full_runs: FullRuns | None = None
        if does_learn(self.policy):
            deepest = model.planner.useful.deepest
            self._full_runs = FullRuns(self.policy, table, deepest, self.costs, audit_fraction)
        self.failures = 0
        """How often the exit policy failed."""
        self.failure: str | None = None
        """The first failure, in words."""

    def at(self, size: Size | None) -> ModelInPlay:
        """The model at ``size``, one of its own."""
        return next(each for each in self.sizes if each.size == size)

    def relax(self, now: float) -> None:
        """Let what was learnt of its costs, at all sizes, fade for the time since the last call."""
        for each in self.sizes:
            each.costs.relax(now)

    def spent(self, segment: int, batch: int, seconds: float) -> float | None:
        """Joules of one sample of a ``batch`` that took ``seconds`` in ``segment``; None if
        unknown. If they are made from processor time, a slow run takes more."""
        usual = self._usual.get((segment, batch))
        if usual is None:
            cost = self.costs.cost(segment, batch)
            usual = cost, float(durations(cost.latency).mean())
            self._usual[segment, batch] = usual
        cost, mean = usual
        joules = self._energy.predict(cost, Spent(seconds, cost.processor * seconds / mean))
        return None if joules is None else joules * self._energy.factor(segment) / batch

    def decide(self, view: ExitView) -> Decision:
        """The decision of the exit policy; the default's if it fails."""
        decision, error = guarded_decision(self.policy, view)
        self._failed(error)
        return decision

    def ended(self, sample: int, exit: int, reason: Reason, is_idle: bool) -> None:
        """A request about ``sample`` ended at ``exit`` for a ``reason`` of the exit policy, after
        which the device ``is_idle``: a policy that learns may see it."""
        if self._full_runs is not None:
            self._failed(self._full_runs.ended(sample, exit, reason, is_idle))

    def _failed(self, error: BaseException | None) -> None:
        if error is not None:
            self.failures += 1
            problem = f"{type(error).__name__}: {error}"
            self.failure = self.failure or f"the exit policy of {self.name!r} failed: {problem}"
