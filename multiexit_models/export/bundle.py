"""From a trained network and its data to a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delen.bundle.manifest import (
    MANIFEST,
    Bundle,
    ExitSpec,
    FileEntry,
    Manifest,
    load_bundle,
)
from delen.core.atomic_file import sync
from delen.core.variant import Size
from delen.errors import BundleError
from multiexit_models.calibrate.criterion import (
    CriterionChoice,
    choose_criterion,
    make_calibration,
)
from multiexit_models.calibrate.provenance import exit_provenance, software
from multiexit_models.calibrate.temperature import fit_temperature
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.splits import PARTS
from multiexit_models.export.exported import (
    Exported,
    Inaccurate,
    check_chain,
    export_network,
    finish,
)
from multiexit_models.export.floors import check_floor
from multiexit_models.export.folder import whole_folder
from multiexit_models.export.network_chain import Chain, ScaledChain, evaluate, exit_specs
from multiexit_models.export.scaled import CHECKED_INPUTS, at_size, scaled_to
from multiexit_models.macs import cumulative_macs, macs_per_stage
from multiexit_models.network import MultiExitNetwork
from multiexit_models.progress import Bar
from multiexit_models.report import LEVEL
from multiexit_models.spec import BuildSpec, BundleSpec
from multiexit_models.train.training import predict
from multiexit_models.train.weights import digest
from policies.plan.sizes import level_of_each

CALIBRATION = "calibration.npz"
QUANTISED_WITH = 500
REHEARSED_WITH = 8


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
    sample, sizes = data.validation.inputs[:1], data.input.sizes
    samples = {size: scaled_to(data.input, sample, size) for size in sizes}
    ranges = data.training.spread(QUANTISED_WITH).inputs
    bar.stage("exporting")

    def export(sample: NDArray[Any], inputs: NDArray[Any], sizes: Sequence[Size]) -> Exported:
        return export_network(
            network,
            sample,
            sizes=sizes,
            name=f"{spec.bundle_name}-{spec.model_version}",
            max_batch=spec.max_batch,
            runtime=spec.runtime,
            precision=spec.precision,
            calibration_inputs=inputs,
            on_segment=bar.segment,
            on_sample=bar.sample,
        )

    own: dict[Size, Exported] = {}
    try:
        exported = export(sample, ranges, sizes)
    except BundleError as error:
        if not sizes:
            raise
        bar.note(f"each size gets graphs of its own: {error}")
        exported = export(sample, ranges, ())
        own = {
            size: export(samples[size], scaled_to(data.input, ranges, size), ()) for size in sizes
        }
    examples = {size: torch.from_numpy(scaled) for size, scaled in samples.items()}
    return Chain(
        exported,
        cumulative_macs(network, torch.from_numpy(sample)),
        macs_per_stage(network, torch.from_numpy(sample))[1],
        partial(predict, network, device="cpu", on_sample=bar.sample),
        digest(network),
        [
            ScaledChain(
                size,
                cumulative_macs(network, example),
                macs_per_stage(network, example)[1],
                own.get(size),
            )
            for size, example in examples.items()
        ],
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
        evaluate(exported, part, bar) for part in (data.validation, data.calibration, data.test)
    )
    temperatures = [fit_temperature(logits, validated.labels) for logits in validated.logits]
    choice = choose_criterion(validated.logits, validated.labels, temperatures, macs)
    table = make_calibration(
        calibrated.logits, calibrated.labels, temperatures, choice.name, calibrated.groups
    )
    if spec.floor is not None:
        check_floor(table, spec.floor, level_of_each(LEVEL, 1 + len(chain.smaller)))
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
    exits = exit_specs(graphs, exported.features, macs, temperatures, tested)
    files = {**graphs, CALIBRATION: table.to_npz()}
    sizes = [
        at_size(chain, index, data, choice.name, temperatures, graphs, bar)
        for index in range(len(chain.smaller))
    ]
    for of_size in sizes:
        files |= of_size.files
    if sizes:
        provenance["sizes"] = [of_size.provenance for of_size in sizes]
    manifest = _manifest(spec, description, data, choice, exits, files, provenance)
    return replace(manifest, smaller=tuple(of_size.spec for of_size in sizes)), files


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
