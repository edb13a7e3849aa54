"""The page at ``/`` in a real browser. Its pictures are kept under ``build/screens``."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import CHROMIUM, DRIVER, Browser, open_browser
from tests.e2e.test_events import ELSEWHERE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tests.builders.daemon import Api, Daemon, Launcher
    from tests.e2e.conftest import Metered

SCREENS = Path(__file__).resolve().parents[2] / "build" / "screens"
DEVICES = {"desktop": (1280, 900, 1.0), "phone": (360, 780, 2.0)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed (.ci/run does)")
    with open_browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


def show(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait_for("the page is live", lambda: browser.text("#live") == "live")


def card(name: str) -> str:
    """The card of a model, as CSS names it: they are in order."""
    number = ["cifar10-resnet", "second", "spoken-digits"].index(name)
    return f"article:nth-of-type({number + 1})"


@pytest.fixture
def page(browser: Browser, daemon: Daemon) -> Browser:
    show(browser, daemon.url)
    return browser


def test_it_loads_nothing_from_elsewhere_and_only_its_own_script_may_run(api: Api) -> None:
    answer = api.get("/")
    assert answer.status == 200 and answer.headers.get_content_type() == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    page = answer.body.decode()
    for own in ('<link rel="icon" href="data:,">', "http://www.w3.org/2000/svg"):
        page = page.replace(own, "")
    assert not ELSEWHERE.search(page), ELSEWHERE.search(page)


@pytest.mark.parametrize("path", ["/", "/metrics", "/v1/figures"])
def test_a_field_that_an_address_does_not_have_is_refused(api: Api, path: str) -> None:
    answer = api.get(f"{path}?x=1")
    assert answer.status == 400
    assert answer.json()["code"] == "unknown_field" and answer.json()["field"] == "x"


def test_figures_are_streamed_to_who_asks_and_are_those_of_their_address(api: Api) -> None:
    connection = api.connect()
    try:
        connection.request("GET", "/v1/events?figures=true")
        streamed = next_figures(connection.getresponse())
    finally:
        connection.close()
    alone = api.get("/v1/figures").json()
    assert streamed.keys() == alone.keys()
    assert [model["name"] for model in alone["models"]] == [
        "cifar10-resnet",
        "second",
        "spoken-digits",
    ]


def next_figures(stream: http.client.HTTPResponse) -> dict[str, object]:
    lines = iter(stream.readline, b"")
    assert any(line == b"event: figures\n" for line in lines)
    figures: dict[str, object] = json.loads(next(lines).partition(b": ")[2])
    return figures


def test_what_an_app_did_is_shown_as_it_does_it(
    page: Browser, api: Api, images: NDArray[np.uint8]
) -> None:
    app = {"tenant": "onthepage", "on_infeasible": "best_effort"}
    assert api.raw(images[0], max_latency_ms=1e-4, **app).status == 200
    page.wait_for("its row", lambda: "onthepage" in page.text("#apps"))
    row = next(line for line in page.text("#apps").splitlines() if line.startswith("onthepage"))
    assert row.split()[1:4] == ["1", "0", "1"]
    assert "exit" in page.text(f"{card('cifar10-resnet')} .key")


def test_bounds_are_shown_with_what_they_buy(page: Browser) -> None:
    form = f"{card('cifar10-resnet')} form"
    output = partial(page.text, f"{card('cifar10-resnet')} output")
    page.wait_for("the plan without bounds", lambda: "Without bounds" in output())
    page.type(f"{form} [name=min_accuracy]", "0.85")
    page.click(f"{form} button")
    page.wait_for("a plan", lambda: "They buy a run to exit" in output())
    assert "guaranteed at level 0.95" in output()
    assert page.run("return document.querySelectorAll('svg .chosen').length") >= 1
    page.type(f"{form} [name=max_latency_ms]", "0.0001")
    page.click(f"{form} button")
    page.wait_for("a refusal", lambda: "Refused" in output())
    assert "Can be kept: max latency" in output()
    page.type(f"{form} [name=max_energy_mj]", "much")
    page.click(f"{form} button")
    page.wait_for("a complaint", lambda: "must be a number" in output())
    for typed, right in (("1,000", "write 1000 or 1"), ("1e999", "too large"), ("0x10", "12.5")):
        page.run("document.querySelectorAll('article form').forEach(form => form.reset())")
        page.type(f"{form} [name=max_energy_mj]", typed)
        page.click(f"{form} button")
        assert f"max_energy_mj: “{typed}”" in output() and right in output()
    page.run("document.querySelectorAll('article form').forEach(form => form.reset())")
    page.type(f"{form} [name=min_accuracy]", "0,85")
    page.click(f"{form} button")
    page.wait_for("a plan", lambda: "They buy a run to exit" in output())


def test_a_daemon_with_a_token_has_the_page_ask_for_it(
    browser: Browser, launcher: Launcher, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    token.chmod(0o600)
    settings = {"server": {"token_file": str(token)}, "power": {"source": "none"}}
    daemon = launcher.start({**settings, "models": {"load": []}})
    show(browser, daemon.url)
    assert browser.text("#watts") == "unknown"
    assert "no power source" in browser.text("#findings")
    assert "cifar10-resnet, the default model, is unloaded" in browser.text("#findings")
    load, state = (f"{card('cifar10-resnet')} {css}" for css in ("button", ".title span"))
    browser.click(load)
    for attempt in ("wrong", "open sesame"):
        browser.wait_for(
            "the dialog", lambda: browser.run("return !!document.querySelector('[open]')")
        )
        assert "server.token_file" in browser.text("#token-why")
        browser.type("#token", attempt)
        browser.click("#token-form .main")
    browser.wait_for("the model", lambda: browser.text(state) == "ready, default")
    browser.run("window.confirm = text => { window.asked = text; return false; }")
    browser.click(load)
    assert "Unload cifar10-resnet?" in browser.run("return window.asked")
    assert not browser.run("return document.querySelector('.title button').disabled")
    launcher.stop(daemon)
    browser.wait_for("that it is over", lambda: "figures are old" in browser.text("#live"))


def test_it_fits_and_everybody_can_read_it(
    browser: Browser,
    metered: Metered,
    images: NDArray[np.uint8],
    audit: Callable[[Browser], list[str]],
) -> None:
    for number in range(20):
        assert metered.api.raw(images[number], tenant=f"app{number % 3}").status == 200
    browser.open("about:blank")
    browser.log()
    show(browser, metered.daemon.url)
    browser.wait_for("the front", lambda: browser.text("output"))
    for device, (width, height, scale) in DEVICES.items():
        for scheme in ("light", "dark"):
            browser.resize(width, height, scheme, scale)
            assert browser.run("return document.documentElement.scrollWidth") == width
            if (device, scheme) in (("desktop", "light"), ("phone", "dark")):
                assert audit(browser) == []
            browser.screenshot(SCREENS / f"{device}-{scheme}.png")
    assert browser.log() == []


@pytest.fixture(scope="module")
def audit() -> Callable[[Browser], list[str]]:
    """What axe finds wrong with a page."""
    axe_core = pytest.importorskip("axe_core_python", reason="axe is of delen[test]")
    script = (Path(axe_core.__path__[0]) / "axe.min.js").read_text("utf-8")
    script += (
        ";axe.run().then(found => arguments[0](found.violations.map("
        "each => each.id + ': ' + each.nodes.map(node => node.html).join(' '))))"
    )
    return lambda browser: [str(each) for each in browser.run_async(script)]
