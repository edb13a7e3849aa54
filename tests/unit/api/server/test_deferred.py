from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from api.reply import reply
from api.server.deferred import DeferredResponse


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_told_once_when_all_are_done_or_one_has_failed(fails: bool) -> None:
    futures: list[Future[Any]] = [Future(), Future(), Future()]
    told: list[None] = []
    later = DeferredResponse(futures, lambda: reply({}), lambda: None, bool)
    later.when_ended(lambda: told.append(None))
    futures[1].set_result(1)
    assert not told
    if fails:
        futures[2].set_exception(ValueError("made to fail"))
        assert len(told) == 1
    else:
        futures[2].set_result(2)
        assert not told
    futures[0].set_result(0)
    assert len(told) == 1


def test_it_is_told_at_once_of_what_is_over() -> None:
    done: Future[Any] = Future()
    done.set_result(1)
    told: list[None] = []
    DeferredResponse([done], lambda: reply({}), lambda: None, bool).when_ended(
        lambda: told.append(None)
    )
    assert len(told) == 1


def test_any_other_server_gets_the_answer_when_it_is_there() -> None:
    done: Future[Any] = Future()
    done.set_result(1)
    later = DeferredResponse([done], lambda: reply({"answer": done.result()}), lambda: None, bool)
    heads: list[str] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        heads.append(status)

    assert b"".join(later({"REQUEST_METHOD": "POST"}, start)) == b'{"answer":1}'
    assert heads == ["200 OK"]
