"""A loaded model: its bundle, its network on a backend, and what it is known to cost here."""

from __future__ import annotations

from dataclasses import dataclass, field

from delen.bundle import Bundle
from delen.costs import Costs
from delen.engine.backends.base import Network
from delen.engine.watch import GuaranteeWatch
from policies.exits import ExitPolicy
from policies.planner import Planner


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    bundle: Bundle
    network: Network
    planner: Planner
    policy: ExitPolicy
    costs: Costs
    watch: GuaranteeWatch = field(default_factory=GuaranteeWatch)

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def exits(self) -> int:
        return len(self.bundle.exits)
