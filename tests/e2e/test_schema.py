"""What schemathesis makes of the OpenAPI document: no failure of the daemon, and no answer that the
document does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from jsonschema import Draft202012Validator  # noqa: E402

from api.openapi.document import document  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders.daemon import Daemon, Launcher

EXAMPLES = 30
DOCUMENT = document("0")
OPERATIONS = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path != "/v1/events"  # it does not end
    and ("{version}" not in path or path.endswith("infer"))  # the same views as without one
]
KNOWN = {"model": "cifar10-resnet", "version": "1"}
REFUSED = (501, 503, 507)
"""Not offered, more than a crowd may have, or a limit without a sensor: refused with a sentence."""


@pytest.fixture(scope="module")
def server(launcher: Launcher, bundles: Path) -> Iterator[Daemon]:
    models = {"path": str(bundles), "load": ["cifar10-resnet", "second"]}
    daemon = launcher.start({"models": models})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture(scope="module")
def schema(server: Daemon) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_the_document_has(schema: Any, method: str, path: str) -> None:
    responses = DOCUMENT["paths"][path][method]["responses"]
    known = {"model": "second"} if path.endswith("load") else KNOWN
    turn = iter(range(1_000_000))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
    def check(case: Any) -> None:
        if next(turn) % 4:
            case.path_parameters |= {name: known[name] for name in known if name in path}
        answer = case.call(timeout=60)
        status = str(answer.status_code)
        assert status in responses, f"{status} is not in the document: {answer.text}"
        assert answer.status_code < 500 or answer.status_code in REFUSED, answer.text
        if (content := responses[status].get("content")) is None:
            assert not answer.content
            return
        media_type = answer.headers["content-type"][0].partition(";")[0]
        assert media_type in content
        if media_type == "application/json":
            whole = {**content[media_type]["schema"], "components": DOCUMENT["components"]}
            Draft202012Validator(whole).validate(answer.json())

    check()
