"""From a trained network and its data to a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import MANIFEST, Bundle, ExitSpec, FileEntry, Manifest, load_bundle
from delen.errors import InvalidInput
from multiexit_models.calibrate.calibrate import choose_criterion, fit_temperature, make_calibration
from multiexit_models.calibrate.provenance import Evaluated, exit_provenance, software
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.export.export import (
    OPSET,
    Exported,
    chain_logits,
    check_chain,
    export_network,
    finish,
)
from multiexit_models.export.folder import whole_folder
from multiexit_models.network import MultiExitNetwork, cumulative_macs
from multiexit_models.report import LEVEL, write_report
from multiexit_models.train.weights import digest
from policies.plan.thresholds import highest_floor, samples_needed

CALIBRATION = "calibration.npz"
CHECKED_INPUTS = 256
QUANTISED_WITH = 500


class Progress(Protocol):
    """Is told how far a build is."""

    def stage(self, name: str) -> None:
        """``name`` begins."""

    def step(self, done: int, total: int, loss: float) -> None:
        """Training has done so many of its steps."""


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str) -> None: ...

    def step(self, done: int, total: int, loss: float) -> None: ...


@dataclass(frozen=True)
class Target:
    """What the bundle is to be called and what it is to be made for."""

    name: str
    version: str
    description: str
    max_batch: int = 32
    runtime: str = "onnx"
    precision: str = "fp32"


def build_bundle(
    network: MultiExitNetwork,
    data: Dataset,
    target: Target,
    folder: Path,
    *,
    training: Mapping[str, Any] | None = None,
    floor: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Calibrate and export ``network``, write the bundle ``folder`` and load it.

    The criterion and the temperatures are fitted to the validation part; the table is of the
    calibration part, and both come from the exported graphs themselves, in the precision that is
    served. The chain's logits must be torch's (not for int8, whose accuracy is what the table
    says). ``training`` is recorded as provenance; it must be JSON. Raises InvalidInput when
    ``folder`` may not be written or ``floor`` cannot be guaranteed, BundleError when the export
    does not compute what the network does. A failed build leaves ``folder`` as it was.
    """
    watcher = progress or Silent()
    network.eval()
    sample = data.validation.inputs[:1]
    macs = cumulative_macs(network, torch.from_numpy(sample))
    with whole_folder(folder, overwrite) as unfinished:
        watcher.stage("exporting")
        exported = export_network(
            network,
            sample,
            name=f"{target.name}-{target.version}",
            max_batch=target.max_batch,
            runtime=target.runtime,
            precision=target.precision,
            calibration_inputs=data.training.spread(QUANTISED_WITH).inputs,
        )
        watcher.stage("calibrating")
        validated, labels = chain_logits(exported, data.validation.inputs), data.validation.labels
        temperatures = [fit_temperature(logits, labels) for logits in validated]
        choice = choose_criterion(validated, labels, temperatures, macs)
        calibrated, tested = _evaluate(exported, data.calibration), _evaluate(exported, data.test)
        table = make_calibration(calibrated.logits, calibrated.labels, temperatures, choice.name)
        if floor is not None:
            _check_floor(table, floor)
        watcher.stage("checking")
        graphs = finish(exported, choice.name, temperatures)
        checked = data.test.spread(CHECKED_INPUTS).inputs
        differences = check_chain(network, graphs, exported, choice.name, temperatures, checked)
        exits = tuple(
            ExitSpec(name, shape, cost, temperature, accuracy)
            for name, shape, cost, temperature, accuracy in zip(
                graphs,
                [*exported.features, None],
                macs,
                temperatures,
                tested.accuracy(),
                strict=True,
            )
        )
        files = {**graphs, CALIBRATION: table.to_npz()}
        provenance = {
            **(training or {}),
            "data": _describe_data(data),
            "weights_sha256": digest(network),
            "exits": exit_provenance(network, sample, calibrated, tested, temperatures),
            "criteria": {name: asdict(score) for name, score in choice.scores.items()},
            "export": {
                "opset": OPSET if target.runtime == "onnx" else None,
                "checked_inputs": len(checked),
                "max_logit_difference": differences,
            },
            "software": software(),
        }
        manifest = Manifest(
            name=target.name,
            version=target.version,
            description=target.description,
            runtime=target.runtime,
            precision=target.precision,
            criterion=choice.name,
            input=data.input,
            classes=len(data.classes),
            labels=data.classes,
            max_batch=target.max_batch,
            exits=exits,
            calibration=CALIBRATION,
            files={name: _entry(contents) for name, contents in files.items()},
            provenance=provenance,
        )
        for name, contents in files.items():
            (unfinished / name).write_bytes(contents)
        (unfinished / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        write_report(load_bundle(unfinished))
    return load_bundle(folder)


def _evaluate(exported: Exported, data: Labelled) -> Evaluated:
    return Evaluated(chain_logits(exported, data.inputs), data.labels)


def _entry(contents: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(contents).hexdigest(), len(contents))


def _describe_data(data: Dataset) -> dict[str, Any]:
    parts = {
        part: len(getattr(data, part)) for part in ("training", "validation", "calibration", "test")
    }
    return {"name": data.name, **parts, "skipped": list(data.skipped)}


def _check_floor(table: Calibration, floor: float) -> None:
    """InvalidInput where no exit can be certified for ``floor`` on this table."""
    best = max(highest_floor(table, exit, LEVEL) for exit in range(table.exits))
    if floor <= best:
        return
    needed = samples_needed(floor, LEVEL)
    accuracy = max(table.accuracy(exit) for exit in range(table.exits))
    if table.samples < needed:
        why = (
            f"{table.samples} calibration samples are too few: even without an error it takes "
            f"{needed}"
        )
    else:
        why = f"the most accurate exit answers {accuracy:.2%} of {table.samples} samples rightly"
    raise InvalidInput(
        f"a floor of {floor:g} cannot be guaranteed at level {LEVEL:g}: {why}; the highest that "
        f"can is {best:g}",
        "floor",
    )
