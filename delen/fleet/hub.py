"""The hub as a process: its HTTP, its actors and its rounds, from settings to a clean stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

from api.server.connection import Patience
from api.server.server import HttpServer
from delen.daemon.signals import SERVED, SignalPipe
from delen.fleet.application import HubApplication, HubService
from delen.fleet.config import HubSettings
from delen.fleet.decider import pack_policy
from delen.fleet.demands import Demands
from delen.fleet.metrics import HubMetrics
from delen.fleet.ray_actors import RayActors
from delen.fleet.rounds import Rounds
from delen.fleet.router import Router
from delen.version import VERSION
from delen.wire.models import Health
from policies.plugins import make_fleet

log = logging.getLogger("delen.fleet")
ready_log = logging.getLogger("delen.ready")
ready_log.setLevel(logging.INFO)  # whoever starts the hub waits for this line at any log.level

_CONNECTIONS = 2000
_STARTED, _ENDED = 0, 255
"""In place of a signal's number: the actors are there, the rounds have ended."""
_LOOK_EVERY = 1.0
_CATCH_AGAIN = 0.05
_HANGS = 30.0
"""Seconds without a step of the rounds after which the hub ends."""
_CLOSING, _CLOSING_A_START = 10.0, 40.0
"""Seconds in which all is to stop, of an open hub and of one that starts, for a Ray that is halfway
there must be whole to end; then the process ends, and its Ray follows within a minute."""


class Hub:
    """One run of the hub. It answers from the first moment on, while its actors start."""

    def __init__(self, settings: HubSettings, signals: SignalPipe) -> None:
        self._settings = settings
        self._signals = signals
        self._stopping = threading.Event()
        self._is_ready = False
        self._failure: BaseException | None = None
        metrics = HubMetrics()
        demands = Demands(settings.lease + settings.period)
        self._actors = RayActors(settings)
        policy = pack_policy(make_fleet(settings.policy))
        self._rounds = Rounds(settings, self._actors, policy, demands, metrics, time.monotonic)
        router = Router(self._rounds.latest, demands, settings.lease, metrics, time.monotonic)
        self._troubles = router.troubles
        metrics.watch(router.nodes, demands.__len__)
        service = HubService(router, metrics, self._health, settings.token)
        self._http = HttpServer(HubApplication(service), _CONNECTIONS, Patience())
        self._thread = threading.Thread(target=self._work, name="delen-rounds", daemon=True)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Returns the exit status, which is 1 where the rounds ended
        or hang: whoever supervises the hub is to start it again."""
        self._url = self._http.listen_tcp(self._settings.host, self._settings.port)
        self._http.start()
        self._thread.start()
        try:
            is_well = self._serve_signals()
        finally:
            has_stopped = self._stop()
        if not has_stopped:
            logging.shutdown()
            os._exit(1)
        return 0 if is_well else 1

    def _work(self) -> None:
        try:
            self._actors.open(self._stopping)
            if not self._stopping.is_set():
                self._is_ready = True
                self._signals.send(_STARTED)
                ready_log.info("ready on %s", self._url)
            while not self._stopping.is_set():
                self._rounds.step()
        except BaseException as error:
            self._failure = error
        try:
            self._actors.close()
        finally:
            self._signals.send(_ENDED)

    def _serve_signals(self) -> bool:
        """Until a signal ends it, True, or what is wrong lasts, False."""
        is_started = False
        while True:
            number = self._signals.wait(_LOOK_EVERY if is_started else _CATCH_AGAIN)
            if not is_started:
                _catch_again()
                is_started = self._is_ready
            if number in (signal.SIGTERM, signal.SIGINT):
                log.info("%s: stopping", signal.Signals(number).name)
                return True
            if number == _ENDED:
                if not self._is_ready and self._failure is not None:
                    raise self._failure
                log.critical("the hub ends: its rounds failed", exc_info=self._failure)
                return False
            if self._hangs():
                log.critical("the hub ends: its rounds hang")
                return False
            if number == signal.SIGHUP:
                log.warning("SIGHUP: the hub reads its configuration at a restart only")

    def _hangs(self) -> bool:
        return self._is_ready and time.monotonic() - self._rounds.stepped > _HANGS

    def _health(self) -> Health:
        if self._hangs() or self._failure is not None:
            return Health("failing", VERSION, ("the rounds of the hub do not go on",))
        problems = self._troubles()
        if self._rounds.problem is not None:
            problems.append(f"there is no decision: {self._rounds.problem}")
        if not self._is_ready:
            problems.append("the actors are not there yet")
        return Health("degraded" if problems else "ok", VERSION, tuple(problems))

    def _stop(self) -> bool:
        """Whether all ended by itself."""
        self._stopping.set()
        self._http.stop()
        self._thread.join(_CLOSING if self._is_ready else _CLOSING_A_START)
        log.info("stopped")
        return not self._thread.is_alive()


def _catch_again() -> None:
    """Ray puts a handler of its own in the place of Python's, which ends the process at once."""
    for number in SERVED:
        signal.signal(number, signal.getsignal(number))
