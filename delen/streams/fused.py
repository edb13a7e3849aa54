"""``delen.Fused``: a small network here answers in time, a large one elsewhere corrects it."""

from __future__ import annotations

import threading
from typing import Any, Literal

from numpy.typing import NDArray

from delen.core.result import Result
from delen.streams.fused_core import (
    PATIENCE,
    FusedCore,
    FusedCounts,
    FusedResult,
    Sending,
)
from delen.streams.place import Answerer, Place
from policies.client.fusion import PERIOD, THRESHOLD


class Fused(FusedCounts):
    """``local`` answers every frame, and ``remote`` some, whose answers are fused when they come.

    Both are clients or engines whose models know the same classes, in whatever order. ``infer``
    returns when the local answer is there; nothing that ``remote`` does delays it. Every
    ``period``-th frame is sent, and one whose similarity rose by ``threshold``. A late remote
    answer corrects the frames since: ``result`` says what is believed of one by now.

    ``alpha`` is the rule: None is Dělen's, ``"similarity"`` Clownfish's, a fraction the fixed
    weight of what was believed before, Clownfish's baseline. At most ``in_flight`` frames are under
    way to ``remote``, each for ``patience`` seconds. ``lost`` counts by cause what was not fused.
    """

    def __init__(
        self,
        local: Answerer,
        remote: Answerer,
        *,
        period: int = PERIOD,
        threshold: float = THRESHOLD,
        alpha: float | Literal["similarity"] | None = None,
        patience: float = PATIENCE,
        in_flight: int = 2,
    ) -> None:
        super().__init__(
            FusedCore(
                period=period,
                threshold=threshold,
                alpha=alpha,
                patience=patience,
                in_flight=in_flight,
            )
        )
        self._local = Place(local, "local")
        self._remote = Place(remote, "remote")
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()

    def infer(
        self,
        frame: Any,
        *,
        feature: NDArray[Any] | None = None,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
    ) -> FusedResult:
        """The local answer to the next frame, fused with what is known by then.

        It keeps the bounds, or comes as near to them as it can: ``result.receipt`` says which.

        ``feature`` is a vector by which frames are compared, of the same length for every frame;
        without it the local probabilities are. Raises what the local client raises; then the frame
        counts for nothing.
        """
        core = self._core
        with self._turn:
            here = core.take(frame, feature)
            with self._lock:
                sending = core.due(here)
            self._send(sending)
            try:
                result = self._local.infer(
                    here.content,
                    max_latency=max_latency,
                    min_accuracy=min_accuracy,
                    max_energy=max_energy,
                    on_infeasible="best_effort",
                )
            except BaseException:
                with self._lock:
                    core.failed(sending)
                raise
            with self._lock:
                fused, settled = core.answered(here, result, sending, self._local.classes)
            self._send(settled)
            return fused

    def result(self, frame: int) -> FusedResult:
        """What is believed of frame number ``frame`` by now. InvalidInput where it is forgotten."""
        with self._lock:
            return self._core.result(frame, self._local.classes)

    def wait(self) -> None:
        """Until no frame is under way to the remote network: ``patience`` seconds at most."""
        for thread in list(self._threads):
            thread.join()

    def _send(self, sending: Sending | None) -> None:
        """Begin to ask the remote network."""
        if sending is None:
            return
        name = f"delen-remote-{self.sent}"
        thread = threading.Thread(target=self._ask, args=(sending,), name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _ask(self, sending: Sending) -> None:
        """Ask the remote network, which may fail in whatever way it likes."""
        outcome: Result | Exception
        try:
            outcome = self._remote.infer(
                sending.content, **self._remote.within(self._core.patience)
            )
        except Exception as error:
            outcome = error
        with self._lock:
            self._core.ended(sending, outcome, self._remote.classes, self._local.classes)
        self._threads.discard(threading.current_thread())
