"""Jobs on their way to other nodes, when the process ends."""

from __future__ import annotations

import subprocess
import sys

_HANGING = """
import threading
from math import inf
from types import SimpleNamespace

from delen.core.handover import Way
from delen.engine import handovers

asked = threading.Event()


class Peers:
    def go_on(self, peer, begun, priority, seconds):
        asked.set()
        threading.Event().wait(60)


handovers.write_result = lambda *of: None
sender = handovers.Handovers(Peers(), "board", threading.RLock(), None, None, None)
options = SimpleNamespace(priority=None)
job = SimpleNamespace(deadline=inf, cancelled=False, is_away=False, options=options)
sender.begin(job, Way("server", 0, 0.1, None))
assert asked.wait(10)
"""


def test_a_peer_that_hangs_does_not_keep_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGING], timeout=30, check=False)
    assert ended.returncode == 0
