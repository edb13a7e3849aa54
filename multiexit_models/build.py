"""From a trained network to a bundle, and from CIFAR-10 to the bundle that delen ships."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from delen.bundle import (
    MANIFEST,
    Bundle,
    ExitSpec,
    FileEntry,
    ImagePreprocessing,
    InputSpec,
    Manifest,
    load_bundle,
)
from delen.errors import InvalidInput
from multiexit_models import cifar
from multiexit_models.calibrate import fit_temperature, make_calibration
from multiexit_models.export import OPSET, check_chain, export_segments
from multiexit_models.folder import check_target, whole_folder
from multiexit_models.network import MultiExitNetwork, cumulative_macs
from multiexit_models.provenance import Evaluated, exit_provenance, software
from multiexit_models.recipe import Recipe
from multiexit_models.residual import residual_cifar
from multiexit_models.train import predict, train
from multiexit_models.weights import WeightsOrigin, digest, load_weights, save_weights

CALIBRATION = "calibration.npz"
CHECKED_INPUTS = 256
SPLIT_SEED = 0


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
class Identity:
    """What a manifest says of a network that neither its weights nor its data tell."""

    name: str
    version: str
    description: str
    input: InputSpec
    classes: int
    labels: tuple[str, ...] | None
    max_batch: int


CIFAR10 = Identity(
    name="cifar10-resnet",
    version="1",
    description="Residual network with five exits for 32 x 32 colour images, trained on CIFAR-10",
    input=InputSpec("uint8", (32, 32, 3), ImagePreprocessing("RGB", "bilinear")),
    classes=len(cifar.LABELS),
    labels=cifar.LABELS,
    max_batch=32,
)


def build_bundle(
    network: MultiExitNetwork,
    identity: Identity,
    calibration: Evaluated,
    test: Evaluated | None,
    check_inputs: NDArray[Any],
    folder: Path,
    *,
    training: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Calibrate and export ``network``, write the bundle ``folder`` and load it.

    ``check_inputs`` ``[n, ...]`` go through the exported chain, whose logits must be torch's.
    ``training`` is recorded as provenance; it must be JSON. Raises InvalidInput when ``folder``
    may not be written, BundleError when the export does not compute what the network does. A
    failed build leaves ``folder`` as it was.
    """
    network.eval()
    sample = torch.from_numpy(check_inputs[:1])
    temperatures = [fit_temperature(logits, calibration.labels) for logits in calibration.logits]
    with whole_folder(folder, overwrite) as unfinished:
        graph_name = f"{identity.name}-{identity.version}"
        graphs, features = export_segments(
            network, sample, temperatures, graph_name, identity.max_batch
        )
        differences = check_chain(network, graphs, temperatures, check_inputs, identity.max_batch)
        table = make_calibration(calibration.logits, calibration.labels, temperatures)
        files = {f"segment{index}.onnx": graph for index, graph in enumerate(graphs)}
        unknown: list[float | None] = [None] * len(graphs)
        exits = tuple(
            ExitSpec(name, shape, macs, temperature, accuracy)
            for name, shape, macs, temperature, accuracy in zip(
                files,
                [*features, None],
                cumulative_macs(network, sample),
                temperatures,
                unknown if test is None else test.accuracy(),
                strict=True,
            )
        )
        files[CALIBRATION] = table.to_npz()
        provenance = {
            **(training or {}),
            "weights_sha256": digest(network),
            "exits": exit_provenance(network, sample, calibration, test, temperatures),
            "export": {
                "opset": OPSET,
                "checked_inputs": len(check_inputs),
                "max_logit_difference": differences,
            },
            "software": software(),
        }
        manifest = Manifest(
            name=identity.name,
            version=identity.version,
            description=identity.description,
            input=identity.input,
            classes=identity.classes,
            labels=identity.labels,
            max_batch=identity.max_batch,
            exits=exits,
            calibration=CALIBRATION,
            files={name: _entry(contents) for name, contents in files.items()},
            provenance=provenance,
        )
        for name, contents in files.items():
            (unfinished / name).write_bytes(contents)
        (unfinished / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        load_bundle(unfinished)
    return load_bundle(folder)


def _entry(contents: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(contents).hexdigest(), len(contents))


def build_cifar10(
    data: Path,
    output: Path,
    *,
    recipe: Recipe,
    calibration_images: int = 5000,
    weights: Path | None = None,
    save_weights_to: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    identity: Identity = CIFAR10,
) -> Bundle:
    """Train the residual network on CIFAR-10 at ``data`` and write its bundle to ``output``.

    ``calibration_images`` of the training images are set aside: temperatures and the table come
    from them alone, and the test images are used for nothing but the test accuracies. With
    ``weights`` nothing is trained. Raises InvalidInput for unusable arguments or data,
    BundleError for a failed export, FloatingPointError when training diverges.
    """
    watcher = progress or Silent()
    check_target(output, overwrite)
    if save_weights_to is not None and not save_weights_to.absolute().parent.is_dir():
        raise InvalidInput(f"{save_weights_to.parent} is no folder", "save_weights")
    watcher.stage("reading data")
    try:
        whole, test = cifar.load(data, "train"), cifar.load(data, "test")
    except (FileNotFoundError, ValueError) as error:
        raise InvalidInput(str(error), "data") from error
    if not 1 <= calibration_images < len(whole):
        raise InvalidInput(
            f"{calibration_images} calibration images cannot be set aside of {len(whole)}",
            "calibration_images",
        )
    training, held_out = cifar.split_calibration(whole, calibration_images, SPLIT_SEED)
    torch.manual_seed(recipe.seed)
    network = residual_cifar(identity.classes)
    if weights is None:
        if len(training) < recipe.batch_size:
            raise InvalidInput(
                f"{len(training)} training images do not fill a batch of {recipe.batch_size}",
                "data",
            )
        watcher.stage("training")
        images, labels = torch.from_numpy(training.images), torch.from_numpy(training.labels)
        train(network, images, labels, recipe, watcher.step)
        origin = WeightsOrigin(asdict(recipe), str(torch.__version__), digest(network))
    else:
        origin = load_weights(network, weights)
    if save_weights_to is not None:
        save_weights(network, origin, save_weights_to)
    watcher.stage("predicting")
    calibration = _evaluate(network, held_out)
    tested = _evaluate(network, test)
    watcher.stage("exporting and checking")
    return build_bundle(
        network,
        identity,
        calibration,
        tested,
        test.images[:CHECKED_INPUTS],
        output,
        training={
            "recipe": origin.recipe,
            "trained_with_torch": origin.torch,
            "data": {
                "name": "CIFAR-10 (Krizhevsky, 2009)",
                "training": len(training),
                "calibration": len(held_out),
                "test": len(test),
                "split_seed": SPLIT_SEED,
            },
        },
        overwrite=overwrite,
    )


def _evaluate(network: MultiExitNetwork, data: cifar.LabelledImages) -> Evaluated:
    return Evaluated(predict(network, torch.from_numpy(data.images)).numpy(), data.labels)
