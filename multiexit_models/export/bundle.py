"""From a trained network and its data to a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import MANIFEST, Bundle, ExitSpec, FileEntry, Manifest, load_bundle
from delen.core.atomic_file import sync
from delen.errors import InvalidInput
from multiexit_models.calibrate.criterion import (
    CriterionChoice,
    choose_criterion,
    make_calibration,
)
from multiexit_models.calibrate.provenance import Evaluated, exit_provenance, software
from multiexit_models.calibrate.temperature import fit_temperature
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.data.splits import PARTS
from multiexit_models.export.exported import (
    Exported,
    Inaccurate,
    chain_logits,
    check_chain,
    export_network,
    finish,
)
from multiexit_models.export.folder import whole_folder
from multiexit_models.macs import cumulative_macs, macs_per_stage
from multiexit_models.network import MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.report import LEVEL, described
from multiexit_models.spec import BuildSpec, BundleSpec
from multiexit_models.train.training import predict
from multiexit_models.train.weights import digest
from policies.plan.thresholds import highest_floor, units_needed

CALIBRATION = "calibration.npz"
CHECKED_INPUTS = 256
QUANTISED_WITH = 500
REHEARSED_WITH = 8


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of exported stages, what it costs and what it must compute.

    ``macs`` are the multiply-adds of a sample that ends at each exit, ``head_macs`` those of the
    exit's own head. ``logits`` are the network's ``[exits, n, classes]`` for inputs ``[n, ...]``,
    computed in another way than by the chain. ``digest`` is of the network's weights.
    """

    exported: Exported
    macs: Sequence[int]
    head_macs: Sequence[int]
    logits: Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
    digest: str


def write_bundle(
    network: MultiExitNetwork,
    data: Dataset,
    spec: BuildSpec,
    description: str,
    training: Mapping[str, Any],
    bar: Bar,
) -> Bundle:
    """Calibrate and export ``network``, write the bundle of ``spec`` and load it.

    ``training`` is recorded as provenance and must be JSON. Raises InvalidInput when the output
    may not be written or the floor cannot be guaranteed, and BundleError as ``rehearse``. A failed
    build leaves the output as it was.
    """
    chain = _export(network, data, spec, bar)
    return write_chain(chain, data, spec, description, training, bar)


def write_chain(
    chain: Chain,
    data: Dataset,
    spec: BundleSpec,
    description: str,
    origin: Mapping[str, Any],
    bar: Bar,
) -> Bundle:
    """Calibrate ``chain``, write the bundle of ``spec`` and load it; as ``write_bundle``."""
    manifest, files = _make(chain, data, spec, description, origin, bar)
    bar.stage("writing")
    with whole_folder(spec.output, spec.overwrite) as unfinished:
        for done, (name, contents) in enumerate(files.items(), 1):
            (unfinished / name).write_bytes(contents)
            sync(unfinished / name)
            bar.file(done, len(files))
        (unfinished / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        load_bundle(unfinished)
    return load_bundle(spec.output)


def rehearse(network: MultiExitNetwork, data: Dataset, spec: BuildSpec, bar: Bar) -> None:
    """Make the files of a bundle of the untrained ``network`` and a few samples, and drop them.

    What cannot be exported is so refused before it is trained. Raises InvalidInput for a network
    that is not a chain, BundleError where its graphs cannot be made or do not compute what the
    network does. Logits that fp16 or int8 spoil are let pass: the trained weights give others.
    """
    bar.note("rehearsing before the training, on a few samples:")
    few = {part: getattr(data, part).spread(REHEARSED_WITH) for part in PARTS}
    try:
        rehearsed, unbound = replace(data, **few), replace(spec, floor=None)
        _make(_export(network, rehearsed, unbound, bar), rehearsed, unbound, "", {}, bar)
    except Inaccurate:
        if spec.precision == "fp32":
            raise


def _export(network: MultiExitNetwork, data: Dataset, spec: BuildSpec, bar: Bar) -> Chain:
    network.eval()
    sample = data.validation.inputs[:1]
    example = torch.from_numpy(sample)
    bar.stage("exporting")
    exported = export_network(
        network,
        sample,
        name=f"{spec.bundle_name}-{spec.model_version}",
        max_batch=spec.max_batch,
        runtime=spec.runtime,
        precision=spec.precision,
        calibration_inputs=data.training.spread(QUANTISED_WITH).inputs,
        on_segment=bar.segment,
        on_sample=bar.sample,
    )
    return Chain(
        exported,
        cumulative_macs(network, example),
        macs_per_stage(network, example)[1],
        partial(predict, network, device="cpu", on_sample=bar.sample),
        digest(network),
    )


def _make(
    chain: Chain,
    data: Dataset,
    spec: BundleSpec,
    description: str,
    origin: Mapping[str, Any],
    bar: Bar,
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the other files of the bundle of ``spec``.

    Temperatures and criterion are fitted to the validation part and the table is of the calibration
    part; both come from the exported graphs themselves, in the precision that is served. The
    chain's logits must equal the network's (but for int8, whose accuracy is in the table).
    """
    exported, macs = chain.exported, chain.macs
    bar.stage("calibrating")
    validated, calibrated, tested = (
        _evaluate(exported, part, bar) for part in (data.validation, data.calibration, data.test)
    )
    temperatures = [fit_temperature(logits, validated.labels) for logits in validated.logits]
    choice = choose_criterion(validated.logits, validated.labels, temperatures, macs)
    table = make_calibration(
        calibrated.logits, calibrated.labels, temperatures, choice.name, calibrated.groups
    )
    if spec.floor is not None:
        _check_floor(table, spec.floor)
    bar.stage("checking")
    graphs = finish(exported, choice.name, temperatures, bar.segment)
    checked = data.test.spread(CHECKED_INPUTS).inputs
    expected = chain.logits(checked)
    differences = check_chain(
        expected, graphs, exported, choice.name, temperatures, checked, bar.sample
    )
    provenance = {
        **origin,
        "data": _describe_data(data),
        "weights_sha256": chain.digest,
        "exits": exit_provenance(macs, chain.head_macs, calibrated, tested, temperatures),
        "criteria": {name: asdict(score) for name, score in choice.scores.items()},
        "export": {
            "opset": exported.stages.opset,
            "checked_inputs": len(checked),
            "max_logit_difference": differences,
            "max_logit": [float(of_exit) for of_exit in np.abs(expected).max(axis=(1, 2))],
        },
        "software": software(),
    }
    exits = _exits(graphs, exported, macs, temperatures, tested)
    files = {**graphs, CALIBRATION: table.to_npz()}
    return _manifest(spec, description, data, choice, exits, files, provenance), files


def _evaluate(exported: Exported, data: Labelled, bar: Bar) -> Evaluated:
    bar.close()
    logits = chain_logits(exported, data.inputs, on_sample=bar.sample)
    return Evaluated(logits, data.labels, data.groups)


def _exits(
    graphs: Mapping[str, bytes],
    exported: Exported,
    macs: Sequence[int],
    temperatures: Sequence[float],
    tested: Evaluated,
) -> tuple[ExitSpec, ...]:
    features = [*exported.features, None]
    columns = zip(graphs, features, macs, temperatures, tested.accuracy(), strict=True)
    return tuple(ExitSpec(*column) for column in columns)


def _describe_data(data: Dataset) -> dict[str, Any]:
    parts = {part: len(getattr(data, part)) for part in PARTS}
    groups = {part: getattr(data, part).group_count for part in PARTS}
    return {
        "name": data.name,
        **parts,
        "groups": groups if any(groups.values()) else None,
        "skipped": list(data.skipped),
        "notes": list(data.notes),
    }


def _manifest(
    spec: BundleSpec,
    description: str,
    data: Dataset,
    choice: CriterionChoice,
    exits: tuple[ExitSpec, ...],
    files: Mapping[str, bytes],
    provenance: Mapping[str, Any],
) -> Manifest:
    return Manifest(
        name=spec.bundle_name,
        version=spec.model_version,
        description=description,
        runtime=spec.runtime,
        precision=spec.precision,
        criterion=choice.name,
        input=data.input,
        classes=len(data.classes),
        labels=data.classes,
        max_batch=spec.max_batch,
        exits=exits,
        calibration=CALIBRATION,
        files={
            name: FileEntry(hashlib.sha256(contents).hexdigest(), len(contents))
            for name, contents in files.items()
        },
        provenance=provenance,
        held_out=data.held_out,
    )


def check_samples(data: Dataset, floor: float) -> None:
    """InvalidInput where the calibration part is too small to guarantee ``floor`` at all."""
    groups = data.calibration.group_count
    needed = units_needed(groups is not None, floor, LEVEL)
    found = len(data.calibration) if groups is None else groups
    if found < needed:
        kind = "samples" if groups is None else "groups"
        raise InvalidInput(
            f"a floor of {floor:g} cannot be guaranteed at level {LEVEL:g}: {found} calibration "
            f"{kind} are too few: even without an error it needs {needed}",
            "floor",
        )


def _check_floor(table: Calibration, floor: float) -> None:
    """InvalidInput where no exit can be certified for ``floor`` on this table."""
    best = max(highest_floor(table, exit, LEVEL) for exit in range(table.exits))
    if floor <= best:
        return
    accuracy = max(table.accuracy(exit) for exit in range(table.exits))
    raise InvalidInput(
        f"a floor of {floor:g} cannot be guaranteed at level {LEVEL:g}: the most accurate exit "
        f"answers {accuracy:.2%} of {described(table)} rightly; the highest floor that can be "
        f"guaranteed is {best:g}",
        "floor",
    )
