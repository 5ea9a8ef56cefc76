"""A real Chromium at the gateway: no page of another site, nor one whose name was rebound, writes, reads or deletes.

Each way of asking is also tried from a page of our own, where it does reach a worker: so it is no empty threat.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.protocol.operations import OPERATIONS
from tests.serving.gateway.access.key_files import add
from tests.serving.gateway.door import SECRET, Door, opened, web_site
from tests.serving.gateway.page_scripts import ASK, BEACON, EMBED, SUBMIT
from tests.serving.gateway.test_access import until

pytest.importorskip("playwright.sync_api", reason="these tests want the package playwright")
from playwright.sync_api import Browser, BrowserContext, Frame, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="these tests want Debian's chromium")

ITEMS = "/v1/collections/default/items"
IMAGE = "iVBORw=="
# What changes something, as [method, path, body]; the old address too.
WRITES: list[Any] = [
    ["POST", ITEMS, {"items": [{"id": "a", "image": IMAGE}]}],
    ["PUT", f"{ITEMS}/a", {"image": IMAGE}],
    ["PATCH", f"{ITEMS}/a", {"label": "b"}],
    ["PATCH", ITEMS, {"items": [{"id": "a", "label": "b"}]}],
    ["DELETE", f"{ITEMS}/a", None],
    ["DELETE", ITEMS, {"ids": ["a"]}],
    ["POST", f"{ITEMS}/delete", {"ids": ["a"]}],
    ["PUT", "/v1/collections/default/snapshots/s", {}],
    ["DELETE", "/v1/collections/default/snapshots/s", None],
    ["POST", "/v1/collections/default/snapshots/s/restore", {}],
    ["POST", "/models/simclr/invoke?op=delete", {"ids": ["a"]}],
    ["POST", "/predictions/simclr?op=upsert", {"items": [{"id": "a", "image": IMAGE}]}],
]
READS: list[Any] = [
    ["GET", ITEMS, None],
    ["GET", f"{ITEMS}/a", None],
    ["GET", f"{ITEMS}/a/image", None],
    ["GET", "/v1/describe", None],
    ["POST", "/v1/search", {"ids": ["a"]}],
    ["POST", f"{ITEMS}/list", {}],
    ["GET", "/models/simclr/invoke?op=count", None],
]
# A form that is sent as plain text may be JSON, with the = that a browser puts between name and value.
FORMS: list[dict[str, Any]] = [
    {"enctype": enctype, "fields": fields, "target": target, "path": path}
    for enctype, fields in (
        ("application/x-www-form-urlencoded", {"id": "a"}),
        ("multipart/form-data", {"id": "a"}),
        ("text/plain", {'{"ids": ["a", "': '"]}'}),
    )
    for target, path in (("_self", "/models/simclr/invoke?op=delete"), ("_blank", f"{ITEMS}/delete"))
]
CHANGES = {name for name, row in OPERATIONS.items() if row.changes}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which every name that ends in .example is this machine."""
    names = "--host-resolver-rules=MAP *.example 127.0.0.1"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=[names, "--no-proxy-server", *sandbox])
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as made:
        made.set_default_timeout(20_000)
        yield made


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    with web_site() as port:
        yield port


@pytest.fixture(scope="module")
def kept_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("none") / "keys.json") as door:
        yield door


@pytest.fixture
def door(kept_open: Door) -> Door:
    """A gateway without keys, to which nothing came yet."""
    kept_open.forget()
    return kept_open


def ask(
    page: Page | Frame, url: str, asks: list[Any], *, credentials: str = "include", **headers: str
) -> list[tuple[int, str]]:
    """Ask from the page that is shown; status and text of what it could read."""
    found = page.evaluate(ASK, {"url": url, "asks": asks, "headers": headers, "credentials": credentials})
    return [(status, text) for status, text in found]


@pytest.fixture(params=["http://127.0.0.1:{}/", "http://evil.example:{}/"])
def elsewhere(request: pytest.FixtureRequest, page: Page, site: int) -> Page:
    """A page of another port, and one of another site."""
    page.goto(request.param.format(site))
    return page


def test_a_page_of_our_own_asks_for_everything(page: Page, door: Door) -> None:
    page.goto(f"{door.url}/healthz")
    read = ask(page, door.url, WRITES + READS)
    assert {*door.passed_on} >= CHANGES
    assert any(SECRET in text for _, text in read)


def test_no_page_of_another_site_asks_anything(elsewhere: Page, door: Door) -> None:
    assert {*ask(elsewhere, door.url, WRITES + READS)} == {(0, "")}
    assert door.passed_on == []
    assert len(door.came) > 50
    assert door.statuses() <= {403, 204}, "204 says which methods there are, and allows none of them"
    assert {method for method, _, status in door.came if status == 204} <= {"OPTIONS"}


def test_nothing_of_ours_is_shown_in_a_page_of_another_site(elsewhere: Page, door: Door) -> None:
    for path in (f"{ITEMS}/a/image", f"{ITEMS}/a/thumbnail", "/metrics", "/docs"):
        found = elsewhere.evaluate(EMBED, {"url": door.url, "path": path})
        assert {found[name] for name in ("img", "script", "link", "video", "events", "socket")} == {"error"}
    assert door.passed_on == []
    assert door.statuses() == {403}
    assert len(door.came) >= 4 * 7


def test_our_own_page_shows_pictures(page: Page, door: Door) -> None:
    page.goto(f"{door.url}/healthz")
    page.evaluate(EMBED, {"url": door.url, "path": f"{ITEMS}/a/image"})
    assert "get" in door.passed_on


def test_a_beacon_of_another_site_writes_nothing(elsewhere: Page, door: Door) -> None:
    posts = [one for one in WRITES if one[0] == "POST"]
    elsewhere.evaluate(BEACON, {"url": door.url, "asks": posts})
    until(lambda: len([one for one in door.came if one[0] == "POST"]) >= len(posts))
    assert door.passed_on == []
    assert door.statuses() <= {403, 204}


def test_a_form_of_another_site_writes_nothing(elsewhere: Page, door: Door) -> None:
    for said in FORMS:
        assert submitted(elsewhere.context, elsewhere.url, said | {"url": door.url + str(said["path"])}) == 403
    assert door.passed_on == []


def submitted(context: BrowserContext, address: str, said: dict[str, Any]) -> int:
    """The status of the reply to a form, sent from a page at this address."""
    page = context.new_page()
    page.goto(address)
    with context.expect_event("response", lambda reply: reply.url == said["url"]) as reply:
        page.evaluate(SUBMIT, said)
    return int(reply.value.status)


def test_a_form_of_our_own_does(page: Page, door: Door) -> None:
    page.goto(f"{door.url}/healthz")
    for said in FORMS:
        expected = 400 if said["enctype"] == "text/plain" else 200  # not even our own may be JSON under that name
        assert submitted(page.context, page.url, said | {"url": door.url + str(said["path"])}) == expected
    assert door.passed_on == ["delete"] * 4


def test_a_sandboxed_frame_asks_nothing(page: Page, door: Door, site: int) -> None:
    page.goto(f"http://evil.example:{site}/")
    page.set_content('<iframe sandbox="allow-scripts allow-forms" srcdoc="<body>"></iframe>')
    frame = page.frames[1]
    frame.wait_for_load_state()
    assert frame.evaluate("self.origin") == "null"
    assert {*ask(frame, door.url, WRITES + READS)} == {(0, "")}
    assert door.passed_on == []


def test_a_link_leads_to_what_is_public_only(context: BrowserContext, door: Door, site: int) -> None:
    for path, expected in (("/docs", 200), (ITEMS, 403), ("/models/simclr/invoke?op=count", 403)):
        page = context.new_page()
        page.goto(f"http://evil.example:{site}/")
        with page.expect_response(door.url + path) as reply:
            page.evaluate("address => { location = address }", door.url + path)
        assert reply.value.status == expected
    assert door.passed_on == []


def test_a_name_that_was_rebound_is_misdirected(page: Page, door: Door) -> None:
    """For the browser, the page and the gateway are of one origin."""
    url = f"http://evil.example:{door.port}"
    reply = page.goto(f"{url}/docs")
    assert reply is not None
    assert reply.status == 421
    public = [["GET", path, None] for path in ("/metrics", "/openapi.json", "/docs", "/readyz")]
    found = ask(page, url, WRITES + READS + public)
    assert {status for status, _ in found} <= {421, 0}
    assert not any(SECRET in text for _, text in found)
    page.evaluate(BEACON, {"url": url, "asks": WRITES})
    page.evaluate(EMBED, {"url": url, "path": f"{ITEMS}/a/image"})
    assert door.passed_on == []
    assert door.statuses() <= {421, 404, 405}, "all that is told is which addresses there are"


def test_with_keys_a_name_that_was_rebound_reads_no_figures_either(page: Page, tmp_path: Path) -> None:
    add(tmp_path / "keys.json", "a", scope="admin")
    with opened(tmp_path / "keys.json") as door:
        page.goto(f"http://evil.example:{door.port}/")
        public = [["GET", path, None] for path in ("/metrics", "/openapi.json", "/docs", "/readyz")]
        found = ask(page, f"http://evil.example:{door.port}", WRITES + READS + public)
        assert {status for status, _ in found} <= {401, 421, 0}
        assert door.passed_on == []


def test_an_allowed_site_asks_with_its_key_only(context: BrowserContext, page: Page, site: int, tmp_path: Path) -> None:
    key = add(tmp_path / "keys.json", "a", scope="write").decode()
    friend, url = f"http://friend.example:{site}", f"http://evil.example:{site}/"
    with opened(tmp_path / "keys.json", [friend]) as door:
        context.add_cookies([{"name": name, "value": key, "url": door.url} for name in ("x-api-key", "authorization")])
        page.goto(f"{friend}/")
        assert {*ask(page, door.url, WRITES + READS)} == {(0, "")}, "no reply to what came with cookies is for a page"
        assert door.statuses() == {401}, "and cookies count for nothing"
        without = ask(page, door.url, WRITES + READS, credentials="omit")
        assert {status for status, _ in without} == {401, 0}
        assert door.passed_on == []
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
            found = ask(page, door.url, READS, credentials="omit", **headers)
            assert any(status == 200 and SECRET in text for status, text in found)
        page.goto(url)
        door.forget()
        assert {*ask(page, door.url, READS, credentials="omit", **{"x-api-key": key})} == {(0, "")}, (
            "its preflight is not answered"
        )
        assert door.passed_on == []


def test_replies_tell_browsers_to_keep_to_them(page: Page, door: Door) -> None:
    for path, expected in ((f"{ITEMS}/a/image", 200), ("/docs", 200), ("/nothing", 404)):
        reply = page.goto(door.url + path)
        assert reply is not None
        assert reply.status == expected
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    framed = page.request.get(f"{door.url}/docs").headers
    assert framed["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in framed["content-security-policy"]
