"""Are bounds kept? 2,000 test images under one kind of bound at a time, at five levels each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Connection, Daemon, Figure, bodies, daemon, report, test_images
from multiexit_models.data.dataset import Labelled

IMAGES = 2000
LEVELS = 5


def answers(server: Daemon, images: Labelled, query: str) -> list[dict[str, Any] | None]:
    """The answer to each image; None where the request was refused."""
    connection = Connection(server.host, server.port)
    received = [connection.try_post(f"/v1/infer?{query}", body) for body in bodies(images.inputs)]
    connection.close()
    return received


def accuracy(received: list[dict[str, Any] | None], images: Labelled) -> float:
    """The share of right answers among those given."""
    right = [
        answer["predictions"][0]["index"] == label
        for answer, label in zip(received, images.labels, strict=True)
        if answer is not None
    ]
    return float(np.mean(right))


def exits(server: Daemon, query: str = "") -> dict[str, Any]:
    connection = Connection(server.host, server.port)
    preview = connection.post(f"/v1/plan?{query}", b"")
    connection.close()
    return preview


def latency_figures(server: Daemon, images: Labelled) -> list[Figure]:
    """One level an exit, half as long again as the plan says for it."""
    figures, accuracies = [], []
    for point in exits(server)["pareto"]:
        level = 1.5 * point["latency_ms"]
        received = answers(server, images, f"max_latency_ms={level:.4f}")
        given = [answer for answer in received if answer is not None]
        kept = float(np.mean([answer["receipt"]["latency_ms"]["met"] for answer in given]))
        refused = 1 - len(given) / len(received)
        accuracies.append(accuracy(received, images))
        name = f"max_latency {level:.2f} ms"
        figures.append(Figure(f"{name}: kept ({refused:.2%} refused)", (kept,), "", 0.99, False))
        figures.append(Figure(f"{name}: accuracy", (accuracies[-1],), ""))
    rise = accuracies[-1] - accuracies[0]
    figures.append(Figure("accuracy, last level less first", (rise,), "", 0.08, False))
    least = min(np.diff(accuracies))
    figures.append(Figure("accuracy, least step (its error is 0.01)", (least,), "", -0.01, False))
    return figures


def floor_figures(server: Daemon, images: Labelled) -> list[Figure]:
    """Five floors from the first exit's accuracy to the highest that can be guaranteed."""
    highest = exits(server, "min_accuracy=0.9999")["nearest"]["min_accuracy"]
    lowest = exits(server)["pareto"][0]["accuracy"]
    figures = []
    for floor in np.linspace(lowest, highest, LEVELS):
        floor = np.floor(1e4 * floor) / 1e4
        received = answers(server, images, f"min_accuracy={floor:.4f}")
        mean_exit = np.mean([answer["exit"] for answer in received if answer])
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


def energy_figures(server: Daemon, images: Labelled) -> list[Figure]:
    figures = []
    for point in exits(server)["pareto"]:
        cap = 1.1 * point["energy_mj"]
        received = answers(server, images, f"max_energy_mj={cap:.5f}")
        within = np.mean([a["receipt"]["energy_mj"]["predicted"] <= cap for a in received if a])
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
