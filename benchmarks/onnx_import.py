"""``python -m benchmarks onnx_import``: a plain ONNX classifier becomes a multi-exit one. The last
exit of the shipped network is joined to one graph, as if nobody had its other exits or its training
code. ``delen import --exits 4`` cuts it again and trains early heads on frozen features, from the
5,000 images alone that the network was not trained on, with pooled and with convolutional heads.
Beside it stands the shipped network, all of whose exits were trained together on 45,000 images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.chain import plain_classifier
from benchmarks.common import Figure, data_folder, report, test_images
from delen.bundle.calibration import Calibration
from delen.bundle.manifest import Bundle, load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from multiexit_models.calibrate.criterion import make_calibration
from multiexit_models.data.cifar import read_cifar10
from multiexit_models.export.chain import all_rows, batches, open_segment, walk
from multiexit_models.imports.run import import_model
from multiexit_models.imports.spec import ImportSpec
from multiexit_models.progress import Bar

EXITS = 4
EPOCHS = 10
TESTED = 2000
BUDGETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Mean costs that the curves are compared at, as shares of the plain classifier's."""


def write_held_out(bundle: Bundle, folder: Path) -> None:
    """The CIFAR-10 images that the shipped network was not trained on, a folder a label."""
    from PIL import Image

    data = read_cifar10(data_folder() / "images" / "cifar10_32.zip")
    for part in (data.validation, data.calibration):
        for index, (image, label) in enumerate(zip(part.inputs, part.labels, strict=True)):
            target = folder / data.classes[label]
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target / f"{len(part)}-{index}.png")


def tested(bundle: Bundle, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Calibration:
    """Every exit's confidence and answer on ``images``, as a table."""
    chain = [open_segment(bundle.graph(k), "onnx") for k in range(len(bundle.exits))]
    logits = np.concatenate(
        [
            np.stack([outputs[0] for _, outputs in walk(chain, batch, all_rows)])
            for batch in batches(images, [bundle.manifest.max_batch])
        ],
        axis=1,
    )
    temperatures = [exit.temperature for exit in bundle.exits]
    return make_calibration(logits, labels, temperatures, bundle.manifest.criterion)


def accuracies_within(
    bundle: Bundle, table: Calibration, budgets: Sequence[float]
) -> list[float | None]:
    """The best accuracy of any threshold and deepest exit at a mean cost within each budget."""
    costs: list[Any] = []
    accuracies: list[Any] = []
    for deepest, exit in enumerate(bundle.exits):
        macs = [exit.macs for exit in bundle.exits[: deepest + 1]]
        costs += [*(table.share_curve(deepest) @ np.array(macs, np.float64)), float(exit.macs)]
        accuracies += [*table.curve(deepest).accuracy, table.accuracy(deepest)]
    found = np.array(costs), np.array(accuracies)
    return [
        float(found[1][found[0] <= budget].max()) if (found[0] <= budget).any() else None
        for budget in budgets
    ]


def main() -> list[Figure]:
    native = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    test = test_images(TESTED)
    bundles = {"native": native}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(plain_classifier(native), folder / "plain.onnx")
        labels = native.manifest.labels or ()
        (folder / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
        write_held_out(native, folder / "images")
        for head in ("pooled", "convolutional"):
            spec = ImportSpec(
                model=folder / "plain.onnx",
                labels=folder / "labels.txt",
                calibration=folder / "images",
                output=folder / head,
                exits=EXITS,
                head=head,
                epochs=EPOCHS,
            )
            bundles[head] = import_model(spec, Bar())
        tables = {
            name: tested(bundle, test.inputs, test.labels) for name, bundle in bundles.items()
        }
    whole = native.exits[-1].macs
    print(f"\nexits on {len(test)} test images: MMAC, accuracy")
    for name, bundle in bundles.items():
        exits = (
            f"{exit.macs / 1e6:6.1f} {tables[name].accuracy(index):.2%}"
            for index, exit in enumerate(bundle.exits)
        )
        print(f"{name:<14} {'   '.join(exits)}")
    print(f"\nthe best accuracy at a mean cost within a share of {whole / 1e6:.1f} MMAC")
    print(" " * 14, *(f"{share:7.0%}" for share in BUDGETS))
    curves = {
        name: accuracies_within(bundle, tables[name], [share * whole for share in BUDGETS])
        for name, bundle in bundles.items()
    }
    for name, curve in curves.items():
        cells = (" " * 7 if value is None else f"{value:7.2%}" for value in curve)
        print(f"{name:<14}", *cells)
    lasts = [table.predictions[:, -1] for table in tables.values()]
    agreeing = [float((last == lasts[0]).mean()) for last in lasts[1:]]
    kept = [
        share
        for head in ("pooled", "convolutional")
        for share, value in zip(BUDGETS, curves[head], strict=True)
        if value is not None and value >= tables["native"].accuracy(len(native.exits) - 1) - 0.01
    ]
    figures = [
        Figure("last exit: same answers as the native one", tuple(agreeing), "", 1.0, False),
        Figure("cost share within a point of the last exit", (min(kept, default=1.0),), "", 0.9),
    ]
    return report("A plain ONNX classifier, imported with early exits", figures)


if __name__ == "__main__":
    main()
