"""An engine in this process as a replay's target."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from delen.bundle.manifest import InputSpec
from delen.core.bounds import OnInfeasible, Options
from delen.core.result import Result
from delen.core.work import Work
from delen.engine.inputs import decode_body
from delen.engine.runtime import Runtime
from delen.replay.inputs import Inputs
from delen.simulate.trace import Arrival


class FailureCount:
    """An observer that counts failures of the dispatch policy."""

    def __init__(self) -> None:
        self._dispatch = 0

    def count(self) -> int:
        return self._dispatch

    def answered(self, result: Result) -> None: ...
    def ran(self, work: Work) -> None: ...
    def policy_failed(self, model: str) -> None: ...
    def segment_failed(self, model: str, segment: int) -> None: ...
    def dispatch_failed(self, times: int) -> None:
        self._dispatch += times

    def audited(self, model: str, agreed: bool) -> None: ...


class EngineTarget:
    """``runtime`` with its models loaded; requests that name no model go to ``default``."""

    def __init__(
        self,
        runtime: Runtime,
        specs: Mapping[str, InputSpec],
        inputs: Mapping[str, Inputs],
        default: str,
        on_infeasible: OnInfeasible = "reject",
    ) -> None:
        self._runtime = runtime
        self._default = default
        self._on_infeasible = on_infeasible
        self._samples = {
            name: [decode_body(body.body, body.media_type, specs[name]) for body in given.bodies]
            for name, given in inputs.items()
        }

    async def ask(self, arrival: Arrival, number: int) -> Result:
        name = arrival.model or self._default
        options = Options(
            tenant=arrival.tenant,
            stream=arrival.stream,
            priority=arrival.priority,
            on_infeasible=self._on_infeasible,
        )
        job = self._runtime.submit(name, self._samples[name][number], arrival.bounds, options)
        try:
            return await asyncio.shield(asyncio.wrap_future(job.future))
        except asyncio.CancelledError:
            self._runtime.cancel([job])
            raise

    async def check(self) -> None:
        """An engine in this process does not go away."""

    async def close(self) -> None: ...
