"""README.md's request and its call from Python do what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.builders.daemon import Api, clean_environment
from tests.e2e.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def keys(value: Any) -> Any:
    """What ``value`` consists of, without its figures."""
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    return [keys(inner) for inner in value] if isinstance(value, list) else None


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_its_request_gets_its_answer(api: Api) -> None:
    found = re.search(r"--data-binary @(\S+) .*\n\s+'(localhost\S+)'\n(\{.*?\n)```", README, re.S)
    assert found is not None
    image, url, answer = found.groups()
    query = {name: given[0] for name, given in parse_qs(urlsplit(f"http://{url}").query).items()}
    assert {*query} == {"max_latency_ms", "min_accuracy"}
    query["max_latency_ms"] = "60000"  # the machine that tests may be slow
    shown = json.loads(answer)
    body = (REPOSITORY / image).read_bytes()
    got = api.post("/v1/infer", body=body, query=query, content_type="image/png").json()
    assert keys(got) == keys(shown)
    for field in ("model", "exits", "reason"):
        assert got[field] == shown[field]
    assert got["predictions"][0]["label"] == shown["predictions"][0]["label"]
    assert got["receipt"]["accuracy"]["overall"] >= float(query["min_accuracy"])
    if got["size"] != shown["size"]:
        pytest.skip(f"at {got['size']} this machine keeps the bounds at less cost")
    assert got["exit"] == shown["exit"]
    accuracy = got["receipt"]["accuracy"]
    for field in ("expected", "overall", "guarantee"):
        assert abs(accuracy[field] - shown["receipt"]["accuracy"][field]) < 0.001


def test_its_python_runs(api: Api) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert "max_energy=0.003" in code
    code = code.replace("max_energy=0.003", "max_energy=100.0")
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=clean_environment(DELEN_URL=api.url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    label, exit, reason, met = ended.stdout.split()
    assert (label, met) == ("cat", "True")
    assert 0 <= int(exit) <= 4
    assert reason in {"confident", "planned_exit", "final"}
