"""Jobs of which another node does a part: how they are planned and checked, what they take with
them, and what their receipts say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from delen.bundle.confidence import PATIENCE
from delen.bundle.features import FEATURES, encode
from delen.bundle.manifest import Manifest
from delen.core.bounds import Bounds
from delen.core.handover import Part, Past, Suspended
from delen.core.variant import Size, format_size
from delen.engine.job import Job
from delen.engine.model import Model
from delen.errors import BundlesDiffer, InvalidInput
from delen.scheduler.handover_plans import PlansFrom, PlansUntil
from policies.plan.handover import Start


def check_digest(name: str, here: str, given: str) -> None:
    """BundlesDiffer unless a job of the bundle ``given`` can go on in ``here``."""
    if given.lower() != here:
        raise BundlesDiffer(
            f"the job comes from bundle {given}; model {name!r} is {here} here: nodes hand jobs "
            "over where they serve the same bundle"
        )


def features_shape(manifest: Manifest, exit: int, size: Size | None) -> tuple[int, ...]:
    """The shape of one sample's features after ``exit`` at ``size``, None for the largest.
    InvalidInput for an exit after which nothing is sent, and for a size that there is not."""
    largest = manifest.all_sizes[-1] if manifest.all_sizes else None
    at_size = {largest: manifest}
    if largest is not None:
        at_size |= dict(zip(manifest.input.sizes, manifest.scaled(), strict=True))
    if size is not None and size not in at_size:
        known = ", ".join(map(format_size, manifest.all_sizes)) or "one size alone: leave it out"
        raise InvalidInput(f"size is {format_size(size)}; {manifest.name} has {known}", "size")
    exits = at_size[size if size is not None else largest].exits
    _check_exit(manifest, exit, "exit")
    shape = exits[exit].features
    assert shape is not None
    return shape


def _check_exit(manifest: Manifest, exit: int, field: str) -> None:
    """InvalidInput where nothing comes after ``exit``."""
    last = len(manifest.exits) - 1
    if not 0 <= exit < last:
        raise InvalidInput(
            f"{field} is {exit}; {manifest.name} can be handed over after exits 0 to {last - 1}"
            if last
            else f"{field} is {exit}; {manifest.name} has one exit and is not handed over",
            field,
        )
    if manifest.criterion == PATIENCE:
        raise InvalidInput(
            f"{manifest.name} stops by {PATIENCE}, which counts exits in a row: its jobs are not "
            "handed over",
            field,
        )


def is_handed_over(model: Model, bounds: Bounds) -> bool:
    """Whether another node may be asked where ``bounds`` cannot be kept: for a floor's sake."""
    manifest = model.bundle.manifest
    is_possible = len(manifest.exits) > 1 and manifest.criterion != PATIENCE
    return is_possible and bounds.min_accuracy is not None


def check_alone(samples: Sequence[object]) -> None:
    if len(samples) > 1:
        raise InvalidInput(
            f"suspend_at is for one sample; this is a batch of {len(samples)}", "suspend_at"
        )


def check_past(model: Model, past: Past, features: NDArray[np.float32]) -> Model:
    """The model at the size of a job that comes with ``past`` and ``features``. InvalidInput or
    BundlesDiffer where it cannot go on."""
    check_digest(model.name, model.bundle.digest, past.bundle)
    shape = features_shape(model.bundle.manifest, past.exit, past.size)
    if features.shape != shape:
        raise InvalidInput(
            f"the features have shape {list(features.shape)}; after exit {past.exit} they have "
            f"{list(shape)}",
            FEATURES,
        )
    at_size = model.at(model.bundle.size if past.size is None else past.size)
    useful = at_size.planner.useful
    if useful.next(past.exit, useful.deepest) is None:
        raise InvalidInput(
            f"exit is {past.exit}; no later exit of {model.name} is more accurate", "exit"
        )
    ran = {exit for part in past.parts for exit in part.exits}
    if ran and max(ran) != past.exit:
        raise InvalidInput(
            f"the parts end at exit {max(ran)}; the features are those after exit {past.exit}",
            "parts",
        )
    return at_size


def plans_until(model: Model, exit: int) -> PlansUntil:
    """Those of a job that ends at ``exit`` here. InvalidInput where nothing comes after it."""
    _check_exit(model.bundle.manifest, exit, "suspend_at")
    return PlansUntil(model.planner, model.costs, model.own_plans, exit)


def plans_from(model: Model, past: Past) -> PlansFrom:
    start = Start(past.exit, past.threshold, past.joules)
    return PlansFrom(model.planner, model.costs, model.own_plans, start)


def suspended(job: Job) -> Suspended:
    """What another node needs to go on with ``job``, which waits for its next segment."""
    model, wanted = job.model, job.options.encoding
    encoding, features = encode(model.network.take_out(job.features), wanted)
    return Suspended(
        exit=job.exit,
        bundle=model.bundle.digest,
        size=model.bundle.size,
        encoding=encoding,
        threshold=job.plan.threshold,
        confidence=job.confidence,
        features=features,
    )


def parts_of(job: Job, now: float, node: str) -> tuple[Part, ...]:
    """What each node took of ``job``, which ends ``now`` on ``node``; none where it is all that
    there is."""
    past, elsewhere = job.past, job.elsewhere
    is_alone = past is None and not elsewhere and not job.is_away
    if is_alone and job.options.suspend_at is None:
        return ()
    before = () if past is None else tuple(replace(part, is_here=False) for part in past.parts)
    first = 0 if past is None else past.exit + 1
    others = sum(part.latency for part in (*before, *elsewhere))
    took = max(0.0, now - job.arrived - others)
    there = {exit for part in elsewhere for exit in part.exits}
    exits = tuple(exit for exit in range(first, job.exit + 1) if exit not in there)
    return (*before, Part(node, exits, took, job.energy, is_here=True), *elsewhere)
