"""Other servers for the same network, a file each, and what loads, measures and ends them."""

from __future__ import annotations

from benchmarks.peers.bentoml import BENTOML
from benchmarks.peers.kserve import KSERVE
from benchmarks.peers.litserve import LITSERVE
from benchmarks.peers.mlserver import MLSERVER
from benchmarks.peers.ray_serve import RAY_SERVE

PEERS = (LITSERVE, BENTOML, *MLSERVER, KSERVE, *RAY_SERVE)
