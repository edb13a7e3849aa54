"""What serving takes beside the segments, measured on an engine that serves a tiny bundle."""

from __future__ import annotations

from pathlib import Path

from delen.bundle import load_bundle
from delen.config import config_of
from delen.device import identify
from delen.engine.backends.choose import BundleBackends
from delen.host_profiler import measure_host
from delen.profiler import QUICK, measure_profile
from power.modes import read_mode


def test_the_engines_own_code_takes_time_and_stretches_segments(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(tiny_bundle)
    config = config_of({"state.path": str(tmp_path), "device.backend": "cpu", "device.threads": 1})
    network = BundleBackends("cpu", 1).load(bundle)
    where = network.placement
    device = identify(
        Path("/"), where.provider, where.threads, where.runtime, read_mode(Path("/")).key
    )
    profile = measure_profile(bundle, network, device, QUICK)
    host = measure_host(config, bundle, profile, rounds=3)
    assert host is not None and host.stretch is not None
    assert 0 < host.request < 0.1
    assert 0 < host.batch + host.task + host.answer < 0.1
    assert host.stretch.p50 > 0.1
    assert not list(tmp_path.iterdir())  # nothing of it is kept
