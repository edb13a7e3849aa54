"""A loaded model: its bundle, its network on a backend, and what it is known to cost here."""

from __future__ import annotations

from dataclasses import dataclass, field

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.engine.guarantee_monitor import GuaranteeMonitor
from delen.profile.cost_model import CostModel
from delen.residency.lease import WHOLE, Residence
from delen.scheduler.exit_view import ExitViewBuilder
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.plan_cache import Plans
from policies.exit.bounds import ExitPolicy
from policies.plan.planner import Planner


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """``plans``, ``views`` and ``figures`` are what requests, exit policies and dispatch policies
    are given of it; all follow ``costs``. ``residence`` knows which segments are in memory."""

    bundle: Bundle
    network: Network
    planner: Planner
    policy: ExitPolicy
    costs: CostModel
    monitor: GuaranteeMonitor = field(default_factory=GuaranteeMonitor)
    residence: Residence = WHOLE
    plans: Plans = field(init=False)
    views: ExitViewBuilder = field(init=False)
    figures: ScheduledModel = field(init=False)

    def __post_init__(self) -> None:
        planner, costs, bundle = self.planner, self.costs, self.bundle
        macs = tuple(exit.macs for exit in bundle.exits)
        figures = ScheduledModel(costs, planner.calibration, bundle.manifest.max_batch)
        object.__setattr__(self, "plans", Plans(planner, costs))
        object.__setattr__(self, "views", ExitViewBuilder(planner, costs, macs))
        object.__setattr__(self, "figures", figures)

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def exits(self) -> int:
        return len(self.bundle.exits)
