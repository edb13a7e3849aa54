"""Clients and engines after a fork. Each case is an app of its own, since pytest's process has
threads that must not be forked."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders.daemon import clean_environment

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon

HEAD = """
import asyncio, multiprocessing, os, sys, threading
import numpy as np
import delen

url, x = sys.argv[1], np.zeros((32, 32, 3), np.uint8)
context = multiprocessing.get_context("fork")

def ask_all(ask, name, told):
    for _ in range(5):
        try:
            told.put("right" if ask(x, stream=name).stream == name else "another's")
        except Exception as error:
            told.put(repr(error))

def in_children(work, rounds=1):
    "What four children at a time report."
    told = context.SimpleQueue()
    for _ in range(rounds):
        children = [context.Process(target=work, args=(f"p{n}", told)) for n in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0, child.exitcode
        while not told.empty():
            print(told.get())
"""

ROUNDS = """
for _ in range(20):
    client = delen.Client(url)
    ask = {ask}
    assert ask(x).stream is None
    in_children(lambda name, told: ask_all(ask, name, told))
    assert ask(x, stream="parent").stream == "parent"
"""

POOL = """
client = delen.Client(url)
client.infer(x)

def streams(name):
    return [client.infer(x, stream=name).stream == name for _ in range(5)]

with context.Pool(4) as pool:
    for rights in pool.map(streams, [f"task{n}" for n in range(40)], chunksize=1):
        for right in rights:
            print("right" if right else "another's")
client.infer(x)
"""

THREADS = """
client = delen.Client(url)
client.infer(x)

def work(name, told):
    threads = [
        threading.Thread(target=ask_all, args=(client.infer, f"{name}.{n}", told))
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

in_children(work, rounds=2)
"""

BUSY_PARENT = """
client, stop, under_way = delen.Client(url), threading.Event(), threading.Barrier(3)
wrong = []

def keep_asking(name):
    under_way.wait()
    while not stop.is_set():
        if client.infer(x, stream=name).stream != name:
            wrong.append(name)

threads = [threading.Thread(target=keep_asking, args=(f"t{n}",)) for n in range(2)]
for thread in threads:
    thread.start()
under_way.wait()
try:
    in_children(lambda name, told: ask_all(client.infer, name, told), rounds=5)
finally:
    stop.set()
for thread in threads:
    thread.join()
assert not wrong
"""

ASYNC = """
client = delen.AsyncClient(url)

async def ask(name):
    results = await asyncio.gather(*(client.infer(x, stream=f"{name}.{n}") for n in range(5)))
    return [result.stream == f"{name}.{n}" for n, result in enumerate(results)]

def work(name, told):
    for right in asyncio.run(ask(name)):
        told.put("right" if right else "another's")

async def main():
    for _ in range(5):
        assert all(await ask("parent"))
        in_children(work)
    assert all(await ask("parent"))
    await client.close()

asyncio.run(main())
"""

APPS = {
    "Client": (ROUNDS.format(ask="client.infer"), 400),
    "infer": (ROUNDS.format(ask="delen.infer"), 400),
    "Pool": (POOL, 200),
    "threads in the children": (THREADS, 200),
    "threads in the parent": (BUSY_PARENT, 100),
    "AsyncClient": (ASYNC, 100),
}


def run(app: str, folder: Path, *arguments: str, url: str = "") -> list[str]:
    """The lines that the app prints."""
    (folder / "app.py").write_text(HEAD + app)
    ended = subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=folder,
        env={**clean_environment(), "DELEN_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return ended.stdout.splitlines()


@pytest.mark.parametrize("address", ["tcp", "unix"])
@pytest.mark.parametrize("name", APPS)
def test_every_process_reads_its_own_answers(
    daemon: Daemon, tmp_path: Path, name: str, address: str
) -> None:
    app, count = APPS[name]
    url = str(daemon.url if address == "tcp" else daemon.unix_url)
    assert Counter(run(app, tmp_path, url, url=url)) == {"right": count}


CLOSED = """
client = delen.Client(url)
client.infer(x)

def work(name, told):
    with client:
        ask_all(client.infer, name, told)
    try:
        client.infer(x)
    except delen.DelenError:
        told.put("closed")

in_children(work)
assert client.infer(x, stream="parent").stream == "parent"
client.close()
in_children(lambda name, told: ask_all(client.infer, name, told))
"""


def test_a_client_is_closed_in_its_own_process_and_stays_closed(
    daemon: Daemon, tmp_path: Path
) -> None:
    told = Counter(run(CLOSED, tmp_path, daemon.url))
    assert (told.pop("right"), told.pop("closed")) == (20, 4)
    assert sum(told.values()) == 20 and all("DelenError" in line for line in told)


LOOPS = """
client, told = delen.AsyncClient(url), []

async def ask(name):
    result = await client.infer(x, stream=name)
    told.append("right" if result.stream == name else "another's")

for n in range(5):
    asyncio.run(ask(f"loop{n}"))
threads = [threading.Thread(target=asyncio.run, args=[ask(f"thread{n}")]) for n in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
asyncio.run(client.close())
try:
    asyncio.run(ask("closed"))
except delen.DelenError:
    told.append("closed")
print("\\n".join(told))
"""


@pytest.mark.parametrize("address", ["tcp", "unix"])
def test_an_async_client_serves_one_event_loop_after_another(
    daemon: Daemon, tmp_path: Path, address: str
) -> None:
    url = str(daemon.url if address == "tcp" else daemon.unix_url)
    assert run(LOOPS, tmp_path, url) == ["right"] * 10 + ["closed"]


ENGINE = """
import gc

bundle, state, x = *sys.argv[2:], np.zeros((4, 4, 1), np.uint8)
engine = delen.Engine(bundle, state=state, threads=3)
expected = engine.infer(x)

def refused(ask):
    try:
        ask()
    except delen.DelenError:
        return
    sys.exit(7)

def in_child(work):
    pid = os.fork()
    if not pid:
        work()
        sys.exit(3)  # an ordinary end, unlike that of multiprocessing's children
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def ask():
    refused(lambda: engine.infer(x))
    refused(lambda: engine.plan())
    refused(lambda: engine.feedback({}))
    refused(lambda: expected.receipt.energy.settled())
    refused(lambda: engine.__enter__().infer(x))

def close():
    with engine:
        engine.close()

def forget():
    global engine
    del engine
    gc.collect()

def open_its_own():
    with delen.Engine(bundle, state=state) as own:
        assert own.infer(x).index == expected.index

for work in (ask, close, forget, open_its_own):
    in_child(work)
assert engine.infer(x).index == expected.index
engine.close()
"""


def test_an_engine_is_refused_in_a_forked_child_and_goes_on_in_the_parent(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(ENGINE, tmp_path, "", str(tiny_bundle), str(tmp_path / "state")) == ["3"] * 4
