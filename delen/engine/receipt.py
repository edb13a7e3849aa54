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
from delen.engine.job import Job
from policies.plan.promises import Terms

_FEW = 64
"""Classes."""


def write_result(job: Job, reason: Reason, now: float) -> Result:
    """The result of ``job``, which has an answer and ends at ``now`` for ``reason``."""
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
        ),
        tenant=job.options.tenant,
        stream=job.options.stream,
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
    return LatencyOutcome(
        bound=bound,
        value=value,
        queue=job.started - job.arrived,
        predicted=job.plan.latency,
        met=None if bound is None else value <= bound,
    )


def _is_confident(job: Job) -> bool:
    """Whether the job's own threshold ends it here, whatever else does at the same moment."""
    threshold = job.plan.threshold
    return threshold is not None and job.exit < job.plan.exit and job.confidence >= threshold


def _ended_as_planned(job: Job, reason: Reason) -> bool:
    return reason != "policy" and (job.exit == job.plan.exit or _is_confident(job))


def terms_of(job: Job, reason: Reason) -> Terms | None:
    """What is promised of the answer of ``job``, which ends for ``reason``.

    None if nothing is: the job was cut off, or the exit policy follows no plan.
    """
    plan = job.plan
    if plan.accuracy is None or not _ended_as_planned(job, reason):
        return None
    floor = job.bounds.min_accuracy if plan.guarantee is not None else None
    return Terms(plan.threshold, plan.exit, floor, plan.size)


def _accuracy(job: Job, reason: Reason) -> AccuracyOutcome:
    """The floor is kept, and its guarantee covers the answer, when the job ended as planned and
    the guarantee still holds."""
    bound = job.bounds.min_accuracy
    is_given = job.plan.guarantee is not None and job.model.monitor.holds
    certified = is_given and _ended_as_planned(job, reason)
    return AccuracyOutcome(
        bound=bound,
        expected=_expected(job.plan.cases[job.exit], job, reason),
        overall=job.plan.accuracy,
        guarantee=job.plan.guarantee if certified else None,
        met=None if bound is None else certified,
        unguaranteed=job.plan.unguaranteed,
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
    known = job.energy is not None
    return EnergyOutcome(
        bound=bound,
        value=job.energy,
        predicted=job.plan.energy,
        kind=energy.kind if known else "unknown",
        source=energy.source if known else None,
        scope=energy.scope if known else None,
        met=None if bound is None or job.energy is None else job.energy <= bound,
    )
