"""One replay from a plan to its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delen.errors import DelenError, ModelNotFound
from delen.replay.inputs import UNKNOWN, Drawn, Inputs, draw, random_inputs, read_inputs
from delen.replay.open_loop import OpenLoop, Target
from delen.replay.record import Clock, Record
from delen.replay.served import Served, asked_of
from delen.simulate.summary import summarise
from delen.simulate.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is sent: ``inputs`` by model, and the input of each request, ``drawn``. ``exits`` is the
    number of exits of the deepest model."""

    trace: Trace
    inputs: Mapping[str, Inputs]
    drawn: Drawn
    exits: int


def make_plan(
    trace: Trace,
    served: Iterable[Served],
    default: str,
    files: Mapping[str | None, Path],
    seed: int,
) -> Plan:
    """Inputs of the models in ``trace``, from ``files`` by model (None: ``default``), and random
    ones for the others.

    Raises ModelNotFound, InvalidInput, or DelenError for a model that is not ready.
    """
    models = asked_of(trace, served, default)
    paths = {default if name is None else name: path for name, path in files.items()}
    if unused := sorted(set(paths) - set(models)):
        raise ModelNotFound(
            f"--inputs are given for {', '.join(unused)}; models in the trace: {', '.join(models)}"
        )
    inputs = {
        name: read_inputs(paths[name], model) if name in paths else random_inputs(model, seed)
        for name, model in models.items()
    }
    exits = max((model.exits for model in models.values()), default=0)
    return Plan(trace, inputs, draw(trace, inputs, default, seed), exits)


@dataclass(frozen=True, slots=True)
class ReplayMode:
    """How a plan is replayed: ``speed`` times faster than its trace says; ``timeout`` in seconds;
    at most ``most`` requests under way; by whose ``clock`` latencies are judged."""

    speed: float = 1.0
    timeout: float = 30.0
    most: int = 512
    clock: Clock = "daemon"


@dataclass(frozen=True, slots=True)
class Played:
    """``summary`` describes the requests that ended. If they are not all, ``problem`` says why, or
    Ctrl-C ``interrupted`` the replay."""

    summary: dict[str, Any]
    problem: DelenError | None
    interrupted: bool


def play(
    plan: Plan,
    target: Target,
    name: str,
    mode: ReplayMode,
    failures: Callable[[], int] = lambda: 0,
    progress: Callable[[int, int], None] | None = None,
) -> Played:
    """Replay ``plan`` against ``target``, named ``name`` in the summary.

    ``failures`` says at the end how often the dispatch policy failed. Raises the problem itself
    when nothing has ended before it.
    """
    due = np.array([arrival.time for arrival in plan.trace]) / mode.speed
    record = Record(plan.trace, due, plan.drawn.label, plan.exits)
    loop = OpenLoop(plan.trace, plan.drawn.index, target, record, mode.timeout, mode.most, progress)
    problem, interrupted = None, False
    try:
        asyncio.run(_run(loop, target))
    except KeyboardInterrupt:
        interrupted = True
    except DelenError as error:
        if not len(record):
            raise
        problem = error
    outcomes = record.outcomes(name, mode.clock, failures())
    summary = {
        **summarise(outcomes, None),
        "clock": mode.clock,
        "client": record.client_figures(),
        "accuracy_kind": record.accuracy_kind,
        "energy_kind": record.energy_kind,
        "inputs": {model: _describe(given) for model, given in plan.inputs.items()},
        "speed": mode.speed,
        "complete": len(record) == len(plan.trace),
    }
    return Played(summary, problem, interrupted)


async def _run(loop: OpenLoop, target: Target) -> None:
    try:
        await loop.run()
    finally:
        await target.close()


def _describe(inputs: Inputs) -> dict[str, Any]:
    labelled = int((inputs.labels != UNKNOWN).sum())
    return {"kind": inputs.kind, "count": len(inputs), "labelled": labelled}
