"""What the server and the application say to each other, beyond WSGI, of requests that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from flask import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ARRIVED = "delen.arrived"
"""In the WSGI environment: when the request reached the daemon, by ``time.monotonic``."""

PROCESSOR = "delen.processor"
"""In the WSGI environment: the processor time of this thread when it took the request."""

SURPLUS = "delen.surplus"
"""In the WSGI environment: true for a connection beyond those that are served."""

SUSPENDS = "delen.suspends"
"""In the WSGI environment: true where the server takes a DeferredResponse for an answer."""


class DeferredResponse(Response):
    """The response that ``make`` gives once all ``futures`` are done or one has failed.

    A server that suspends gets this object for a body, and no thread has to wait. With any other
    the calling thread does. ``give_up`` tells that nobody wants the answer any more; the futures
    are then to end soon. ``is_last`` says whether the thread that ends the last future has nothing
    else to do.
    """

    def __init__(
        self,
        futures: Sequence[Future[Any]],
        make: Callable[[], WSGIApplication],
        give_up: Callable[[], None],
        is_last: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._futures = futures
        self.make = make
        self.give_up = give_up
        self.is_last = is_last

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get(SUSPENDS):
            return self  # type: ignore[return-value]  # what SUSPENDS stands for
        ended = threading.Event()
        self.when_ended(ended.set)
        ended.wait()
        return self.make()(environ, start_response)

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once, as soon as ``make`` would not have to wait: on this thread if that
        is now, else on the one that ends the last future, which it may hold up if ``is_last``."""
        lock, left = threading.Lock(), len(self._futures)

        def ended(future: Future[Any]) -> None:
            nonlocal left
            with lock:
                was_open = left > 0
                left = 0 if future.exception() is not None else left - 1
                is_over = was_open and left <= 0
            if is_over:
                tell()

        for future in self._futures:
            future.add_done_callback(ended)
