"""From a finished job to its result and receipt."""

from __future__ import annotations

from math import exp

import numpy as np
from numpy.typing import NDArray

from delen.core.plan import Case
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Reason,
    Receipt,
    Result,
)
from delen.engine.handover import parts_of, suspended
from delen.engine.job import Job
from policies.plan.planner import DEPARTED
from policies.plan.promises import Terms

_FEW = 64
"""Classes."""


def write_result(job: Job, reason: Reason, now: float, node: str) -> Result:
    """The result of ``job``, which has an answer and ends at ``now`` on ``node`` for ``reason``."""
    assert job.logits is not None
    manifest = job.model.bundle.manifest
    temperature, labels = manifest.exits[job.exit].temperature, manifest.labels
    probabilities: NDArray[np.float32] | None = None
    if job.options.top_k == 1 and not job.options.probabilities and len(job.logits) <= _FEW:
        best = [_most_probable(job.logits.tolist(), temperature)]
    else:
        probabilities = _softmax(job.logits / temperature)
        order = np.argsort(-probabilities, kind="stable")[: job.options.top_k].tolist()
        best = [(index, float(probabilities[index])) for index in order]
    return Result(
        model=manifest.name,
        version=manifest.version,
        request_id=job.request_id,
        predictions=tuple(
            [
                Prediction(index, labels[index] if labels else None, probability)
                for index, probability in best
            ]
        ),
        probabilities=probabilities if job.options.probabilities else None,
        exit=job.exit,
        exits=job.model.exits,
        reason=reason,
        receipt=Receipt(
            _latency(job, now),
            _accuracy(job, reason),
            _energy(job),
            job.model.bundle.size,
            job.receiving,
            parts_of(job, now, node),
        ),
        tenant=job.options.tenant,
        stream=job.options.stream,
        suspended=suspended(job) if reason == "suspended" else None,
    )


def _most_probable(logits: list[float], temperature: float) -> tuple[int, float]:
    """The index of the largest of a few ``logits`` and its probability: numpy takes four times as
    long between two networks, mostly to begin each of its steps."""
    largest = max(logits)
    return logits.index(largest), 1 / sum(
        [exp((logit - largest) / temperature) for logit in logits]
    )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max())
    probabilities: NDArray[np.float32] = powers / powers.sum()
    return probabilities


def _latency(job: Job, now: float) -> LatencyOutcome:
    bound, value = job.bounds.max_latency, now - job.arrived
    before = 0.0 if job.past is None else job.past.seconds
    return LatencyOutcome(
        bound=bound,
        value=value,
        queue=job.started - job.arrived - before,
        predicted=job.plan.latency,
        met=None if bound is None else value <= bound,
    )


def _is_confident(job: Job) -> bool:
    """Whether the job's own threshold ends it here, whatever else does at the same moment."""
    threshold = job.plan.threshold
    is_early = job.exit < job.plan.exit or job.suspend_at is not None
    return threshold is not None and is_early and job.confidence >= threshold


def _ended_as_planned(job: Job, reason: Reason) -> bool:
    return reason != "policy" and (job.exit == job.plan.exit or _is_confident(job))


def terms_of(job: Job, reason: Reason) -> Terms | None:
    """What is promised of the answer of ``job``, which ends for ``reason``.

    None if nothing is: the job was cut off, the exit policy follows no plan, inputs are not like
    the calibration data, or another node did a part, so that the answers here are not those of all
    inputs.
    """
    plan = job.plan
    if job.model.monitor.has_departed:
        return None
    is_part = job.past is not None or job.suspend_at is not None or bool(job.elsewhere)
    if is_part or plan.accuracy is None or not _ended_as_planned(job, reason):
        return None
    floor = job.bounds.min_accuracy if plan.guarantee is not None else None
    return Terms(plan.threshold, plan.exit, floor, plan.size)


def _accuracy(job: Job, reason: Reason) -> AccuracyOutcome:
    """The floor is kept, and its guarantee covers the answer, when the job ended as planned and
    the guarantee still holds."""
    if job.verdict is not None:
        return job.verdict
    bound = job.bounds.min_accuracy
    if reason == "suspended":
        forced, overall = job.plan.cases[job.exit].forced, job.plan.accuracy
        return AccuracyOutcome(bound, forced, overall, None, None, job.plan.unguaranteed)
    has_departed, unguaranteed = job.model.monitor.has_departed, job.plan.unguaranteed
    if has_departed and bound is not None:
        unguaranteed = unguaranteed or DEPARTED
    is_given = job.plan.guarantee is not None and job.model.monitor.holds and not has_departed
    certified = is_given and _ended_as_planned(job, reason)
    return AccuracyOutcome(
        bound=bound,
        expected=_expected(job.plan.cases[job.exit], job, reason),
        overall=job.plan.accuracy,
        guarantee=job.plan.guarantee if certified else None,
        met=None if bound is None else certified,
        unguaranteed=unguaranteed,
    )


def _expected(case: Case, job: Job, reason: Reason) -> float | None:
    """The accuracy of the answer's own case. A dispatch policy cuts jobs off by their confidence,
    so of those it is the accuracy of answers as confident as this one."""
    if reason == "policy":
        if not job.cut_off or job.plan.accuracy is None:
            return None
        return job.model.view.accuracy_after(job.exit, job.confidence, job.exit)
    if _is_confident(job):
        return case.confident
    return case.planned if job.exit == job.plan.exit else case.forced


def _energy(job: Job) -> EnergyOutcome:
    bound, energy = job.bounds.max_energy, job.model.costs.energy
    value = job.total_energy
    known = value is not None
    return EnergyOutcome(
        bound=bound,
        value=value,
        predicted=job.plan.energy,
        kind=energy.kind if known else "unknown",
        source=energy.source if known else None,
        scope=energy.scope if known else None,
        met=None if bound is None or value is None else value <= bound,
    )
