"""What the encoding of features costs: the shipped bundles' test data run to an exit, their
features encoded as for another node, decoded, and run on to the deepest exit.

Agreement is the share of answers that are those of a run without a handover. Each figure has one
value an exit at which a job can be handed over.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, data_folder, report, test_images
from delen.bundle.features import decode, encode, encoded_size
from delen.bundle.manifest import Bundle, load_bundle
from delen.core.bounds import DEFAULT_ENCODING, Encoding
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.base import Features, Network
from delen.engine.backends.onnx import OnnxBackend
from multiexit_models.data.audio import read_fsdd
from multiexit_models.data.dataset import Labelled
from multiexit_models.data.reading import Reading

IMAGES = 2_000
MOST_LOST = 0.1
"""Points of accuracy that the default may cost."""


def main(threads: int = 1) -> list[Figure]:
    figures = []
    for name, samples in (("cifar10-resnet", test_images(IMAGES)), ("spoken-digits", _digits())):
        figures += _measure(load_bundle(SHIPPED_BUNDLES / name), samples, threads)
    return report("What features lose on their way to another node", figures)


def _digits() -> Labelled:
    file = data_folder() / "audio" / "fsdd_wavs.zip"
    if not file.exists():
        sys.exit(f"no recordings at {file}")
    return read_fsdd(file, Reading(shape=(8000,), sample_rate=8000)).test


def _measure(bundle: Bundle, samples: Labelled, threads: int) -> Iterator[Figure]:
    network = OnnxBackend("cpu", threads).load(bundle)
    last, labels = len(bundle.exits) - 1, samples.labels
    encodings: tuple[Encoding, ...] = get_args(Encoding)
    answers = {(exit, each): [] for exit in range(last) for each in encodings}
    whole: list[int] = []
    for batch in _batches(samples.inputs, bundle.manifest.max_batch):
        features: Sequence[Features] = batch
        for exit in range(last):
            features = network.run(exit, features).features
            sent = [network.take_out(each) for each in features]
            for encoding in encodings:
                received = [network.take_in(_sent_and_received(each, encoding)) for each in sent]
                answers[exit, encoding] += _run_on(network, exit + 1, last, received)
        whole += _run_on(network, last, last, features)
    right = np.array(whole) == labels
    share = 100 * float(right.mean())
    print(f"\n{bundle.name}: {len(labels)} samples, {share:.2f} % right at exit {last}")
    print(f"{'exit':>4} {'encoding':<8} {'bytes':>7} {'agreement':>9} {'accuracy':>8} {'lost':>6}")
    for encoding in encodings:
        agreements, losses = [], []
        for exit in range(last):
            found = np.array(answers[exit, encoding])
            shape = bundle.exits[exit].features or ()
            agreement = 100 * float((found == whole).mean())
            accuracy = 100 * float((found == labels).mean())
            lost = share - accuracy
            print(
                f"{exit:>4} {encoding:<8} {encoded_size(shape, encoding):>7} {agreement:>8.2f}% "
                f"{accuracy:>7.2f}% {lost:>6.2f}"
            )
            agreements.append(agreement)
            losses.append(lost)
        limit = MOST_LOST if encoding == DEFAULT_ENCODING else None
        yield Figure(f"{bundle.name}: agreement, {encoding}", tuple(agreements), "%")
        yield Figure(f"{bundle.name}: accuracy lost, {encoding}", tuple(losses), "points", limit)


def _batches(inputs: NDArray[np.generic], size: int) -> Iterator[Sequence[NDArray[np.generic]]]:
    for begin in range(0, len(inputs), size):
        yield list(inputs[begin : begin + size])


def _sent_and_received(features: NDArray[np.float32], encoding: Encoding) -> NDArray[np.float32]:
    used, raw = encode(features, encoding)
    return decode(raw, features.shape, used)


def _run_on(network: Network, first: int, last: int, features: Sequence[Features]) -> list[int]:
    """The answers of exit ``last``."""
    for segment in range(first, last):
        features = network.run(segment, features).features
    answers: list[int] = network.run(last, features).logits.argmax(axis=1).tolist()
    return answers


if __name__ == "__main__":
    main()
