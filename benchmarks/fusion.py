"""Two places at once on correlated streams: the accuracy of fused answers between local and remote.

A camera moves over CIFAR-10 test images, one after the other for 1 to 4 s each (it pans, zooms, and
the light changes; ``benchmarks/moving_images.py``), 30 frames a second, and every frame is a
window. The local network is the first exit of the shipped one, the remote network all of it; both
see the same frames. A remote answer comes the lag after its frame was sent, and 30 ms of its own
later: in the next frame for 3 ms, in the sixth for 150 ms. The share of the gap is
(fused - local) / (remote - local) over a stream. There are five streams; constants were chosen on
eight others of the same images. ``trust`` is Dělen's rule, ``clownfish`` the published one with the
similarity of successive probabilities, ``0.5`` the fixed weight that is its baseline; all send the
same windows. ``history`` is what is believed of each frame in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, report, test_images
from benchmarks.moving_images import FPS, move
from delen.bundle.manifest import Bundle, load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.choose import BundleBackends
from policies.client.fusion import KEEP, PERIOD, THRESHOLD, Fusion, SendFilter
from policies.client.fusion_rules import Clownfish, FusionRule, Trust

SEEDS = 5
SECONDS = 60.0
LOCAL = 0
REMOTE_SECONDS = 0.030
LAGS = {0.003: 0.6, 0.150: 0.5}
"""Seconds of lag, and the share of the gap that is claimed at it."""
RULES: dict[str, Callable[[], FusionRule]] = {
    "trust": Trust,
    "clownfish": Clownfish,
    "0.5": lambda: Clownfish(0.5),
}

Rows = NDArray[np.float64]


def probabilities(bundle: Bundle, frames: NDArray[np.uint8]) -> Rows:
    """Of the local network and the remote one: [frames, 2, classes]."""
    network = BundleBackends("cpu", 1).load(bundle)
    exits = len(bundle.exits)
    found = np.empty((len(frames), 2, bundle.manifest.classes))
    for first in range(0, len(frames), bundle.manifest.max_batch):
        rows = slice(first, first + bundle.manifest.max_batch)
        features = list(frames[rows])
        for exit in range(exits):
            run = network.run(exit, features)
            features = list(run.features)
            if exit in (LOCAL, exits - 1):
                powers = run.logits.astype(np.float64) / bundle.exits[exit].temperature
                powers = np.exp(powers - powers.max(axis=1, keepdims=True))
                found[rows, int(exit > LOCAL)] = powers / powers.sum(axis=1, keepdims=True)
    return found


def fuse(local: Rows, remote: Rows, late: int | None, rule: FusionRule) -> tuple[Rows, Rows, float]:
    """What is believed of each window at once, and in the end, and the share of windows sent.

    A remote answer comes ``late`` windows after its own, or never.
    """
    fusion, send = Fusion(rule, max(KEEP, len(local))), SendFilter(PERIOD, THRESHOLD)
    arriving: dict[int, int] = {}
    at_once, sent = np.empty_like(local), 0
    for window, seen in enumerate(local):
        is_due = send.due()
        if window in arriving:
            fusion.remote(arriving[window], remote[arriving[window]])
        found = fusion.local(seen, seen)
        at_once[window] = found.probabilities
        if send.settled(found.similarity) or is_due:
            sent += 1
            if late is not None:
                arriving[window + late] = window
    at_last = np.stack([fusion.window(window).probabilities for window in range(len(local))])
    return at_once, at_last, sent / len(local)


def main() -> list[Figure]:
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    images = test_images(10_000)
    values: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        values.setdefault(name, []).append(value)

    for seed in range(SEEDS):
        stream = move(images, SECONDS, seed)
        both = probabilities(bundle, stream.frames)
        local, remote = both[:, 0], both[:, 1]
        right = [float((rows.argmax(axis=1) == stream.labels).mean()) for rows in (local, remote)]
        print(f"seed {seed}: local {right[0]:.4f}, remote {right[1]:.4f}", flush=True)
        gap = right[1] - right[0]
        note("local", right[0])
        note("remote", right[1])
        for rule, make in RULES.items():
            for lag in (*LAGS, None):
                late = None if lag is None else ceil((lag + REMOTE_SECONDS) * FPS)
                at_once, at_last, share = fuse(local, remote, late, make())
                accuracy = float((at_once.argmax(axis=1) == stream.labels).mean())
                where = "no remote" if lag is None else f"{1e3 * lag:g} ms"
                note("sent", share)
                if lag is None:
                    note(f"{rule}, no remote: fused - local", accuracy - right[0])
                    continue
                note(f"{rule}, {where}: share of the gap", (accuracy - right[0]) / gap)
                if rule == "trust":
                    note(f"{rule}, {where}: least fused - local", accuracy - right[0])
                    revised = float((at_last.argmax(axis=1) == stream.labels).mean())
                    note(
                        f"{rule}, {where}: share of the gap in history", (revised - right[0]) / gap
                    )
    return report("Fused answers", _figures(values))


def _figures(values: dict[str, list[float]]) -> list[Figure]:
    limits = {f"trust, {1e3 * lag:g} ms: share of the gap": at for lag, at in LAGS.items()}
    limits |= {f"trust, {1e3 * lag:g} ms: least fused - local": 0.0 for lag in LAGS}
    limits["trust, no remote: fused - local"] = 0.0
    return [
        Figure(
            name,
            (min(each),) if "least" in name else tuple(each),
            "",
            limits.get(name),
            at_most=False,
        )
        for name, each in values.items()
    ]
