"""Are bounds kept? 2,000 test images under one kind of bound at a time, at five levels each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Connection, Daemon, Figure, bodies, daemon, report, test_images
from multiexit_models.cifar import LabelledImages

IMAGES = 2000
LEVELS = 5


def answers(server: Daemon, images: LabelledImages, query: str) -> list[dict[str, Any]]:
    connection = Connection(server.host, server.port)
    received = [connection.post(f"/v1/infer?{query}", body) for body in bodies(images.images)]
    connection.close()
    return received


def accuracy(received: list[dict[str, Any]], images: LabelledImages) -> float:
    predicted = np.array([answer["predictions"][0]["index"] for answer in received])
    return float((predicted == images.labels).mean())


def kept(received: list[dict[str, Any]], bound: str) -> float:
    return float(np.mean([answer["receipt"][bound]["met"] for answer in received]))


def exits(server: Daemon, query: str = "") -> dict[str, Any]:
    connection = Connection(server.host, server.port)
    preview = connection.post(f"/v1/plan?{query}", b"")
    connection.close()
    return preview


def latency_figures(server: Daemon, images: LabelledImages) -> list[Figure]:
    """Levels half-way, in logarithm, between what the exits take: one level an exit."""
    predicted = [point["latency_ms"] for point in exits(server)["pareto"]]
    levels = [1.5 * latency for latency in predicted]
    figures, accuracies = [], []
    for level in levels:
        received = answers(server, images, f"max_latency_ms={level:.4f}&on_infeasible=best_effort")
        accuracies.append(accuracy(received, images))
        share = kept(received, "latency_ms")
        figures.append(Figure(f"max_latency {level:.2f} ms: kept", (share,), "", 0.99, False))
        figures.append(Figure(f"max_latency {level:.2f} ms: accuracy", (accuracies[-1],), ""))
    rise = min(np.diff(accuracies))
    figures.append(Figure("accuracy rises with the bound, least step", (rise,), "", 0.0, False))
    return figures


def floor_figures(server: Daemon, images: LabelledImages) -> list[Figure]:
    """Five floors from the first exit's accuracy to the highest that can be guaranteed."""
    highest = exits(server, "min_accuracy=0.9999")["nearest"]["min_accuracy"]
    lowest = exits(server)["pareto"][0]["accuracy"]
    figures = []
    for floor in np.linspace(lowest, highest, LEVELS):
        floor = np.floor(1e4 * floor) / 1e4
        received = answers(server, images, f"min_accuracy={floor:.4f}")
        mean_exit = np.mean([answer["exit"] for answer in received])
        figures.append(
            Figure(
                f"min_accuracy {floor:.4f}: accuracy (mean exit {mean_exit:.2f})",
                (accuracy(received, images),),
                "",
                float(floor),
                False,
            )
        )
    return figures


def energy_figures(server: Daemon, images: LabelledImages) -> list[Figure]:
    figures = []
    for point in exits(server)["pareto"]:
        cap = 1.1 * point["energy_mj"]
        received = answers(server, images, f"max_energy_mj={cap:.5f}")
        within = np.mean([a["receipt"]["energy_mj"]["predicted"] <= cap for a in received])
        figures.append(
            Figure(f"max_energy {cap:.2f} mJ: predicted within", (float(within),), "", 1.0, False)
        )
        figures.append(
            Figure(f"max_energy {cap:.2f} mJ: accuracy", (accuracy(received, images),), "")
        )
    return figures


def main() -> list[Figure]:
    images = test_images(IMAGES)
    with tempfile.TemporaryDirectory() as state, daemon(Path(state)) as server:
        figures = report("max_latency alone", latency_figures(server, images))
        figures += report("min_accuracy alone", floor_figures(server, images))
        figures += report("max_energy alone", energy_figures(server, images))
    return figures


if __name__ == "__main__":
    main()
