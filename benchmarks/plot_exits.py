"""``python -m benchmarks.plot_exits FILE``: accuracy against latency and energy per exit, drawn
from the shipped bundle's test accuracies and this machine's own profile."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib import pyplot as plt

from delen.bundle.manifest import load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.daemon.in_process import Engine


def main(file: Path) -> None:
    accuracies = [
        exit.test_accuracy or 0.0 for exit in load_bundle(SHIPPED_BUNDLES / "cifar10-resnet").exits
    ]
    with Engine() as engine:
        points = engine.plan(max_latency=60.0).points
    percent = [100 * accuracy for accuracy in accuracies]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    energies = [point.energy for point in points]
    series = [
        ("latency, 99th percentile (ms)", [1e3 * point.latency for point in points]),
        ("energy, estimated (mJ)", [1e3 * joules for joules in energies if joules is not None]),
    ]
    for axis, (label, values) in zip(axes, series, strict=True):
        axis.plot(values, percent, marker="o", color="#2a6f97", linewidth=2)
        for exit, (x, y) in enumerate(zip(values, percent, strict=True)):
            axis.annotate(f"exit {exit}", (x, y), (6, -12), textcoords="offset points", fontsize=9)
        axis.set_xlabel(label)
        axis.margins(0.14, 0.1)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy on 10,000 test images (%)")
    figure.suptitle("cifar10-resnet: what each exit costs and gives on this machine")
    figure.savefig(file, dpi=130)
    print(f"written to {file}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
