"""The bundle of the comparison of transports is one that the daemon can load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.transports import CLAIMED, as_json, as_octets, as_oip, claims, write_bundle
from delen.bundle.manifest import load_bundle


def test_the_bundle_is_whole_and_its_graph_runs(tmp_path: Path) -> None:
    write_bundle(tmp_path / "small", "small", 100)
    bundle = load_bundle(tmp_path / "small")
    assert bundle.manifest.input.shape == (100,)
    session = ort.InferenceSession(bundle.graph(0))
    logits, confidence = session.run(None, {"input": np.ones((1, 100), np.float32)})
    assert logits.shape == (1, 4) and confidence.shape == (1,)


def test_each_way_carries_the_same_numbers() -> None:
    values = np.array([1.5, -2.0], np.float32)
    assert as_json("m", values).body == b'{"input":[1.5,-2.0]}'
    assert as_octets("m", values).body == values.tobytes()
    assert as_oip("m", values).body.endswith(values.tobytes())
    assert b"region" in as_oip("m", values, shared_memory_region="region").body


def test_only_the_sdk_at_one_size_is_claimed() -> None:
    added = {"binary OIP, TCP": [1.0], "tritonclient, TCP": [2.0], "SDK, shm": [0.2]}
    claimed = [figure for figure in claims(CLAIMED, added) if figure.holds is not None]
    assert [figure.holds for figure in claimed] == [True, True]
    assert all(figure.holds is None for figure in claims("3 KB", added))
