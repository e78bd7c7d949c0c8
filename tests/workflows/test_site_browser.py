"""The documentation site in a real browser: it fits a phone, its text can be read in light and in dark, the gallery filters, the
search finds."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.workflows.contrast import faint_texts

pytestmark = [pytest.mark.browser, pytest.mark.slow]

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = ["index.html", "getting-started.html", "generated/gallery.html", "generated/systems/ties.html", "generated/plans.html"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the site: opened as files it has no search."""
    pytest.importorskip("material")
    repository = Path(__file__).parents[2]
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(repository / "docs", folder / "docs", ignore=shutil.ignore_patterns("generated", "__pycache__"))
    shutil.copy(repository / "mkdocs.yml", folder)
    subprocess.run([sys.executable, str(folder / "docs" / "generate.py")], check=True, capture_output=True)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-q"], cwd=folder, check=True, env=environment)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder / "site")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if _CHROMIUM is None:
        pytest.skip("Chromium is not installed. Install it with: apt-get install chromium chromium-driver")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_can_be_read(browser: Any, address: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for name in PAGES:
        page.goto(address + name)
        page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, name
        assert faint_texts(page) == [], name
    context.close()


def test_the_gallery_opens_by_room_and_filters(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address + "generated/systems/ties.html")
    page.get_by_role("link", name="merging", exact=True).first.click()
    page.wait_for_url("**/gallery.html?room=merging")
    shown = "[...document.querySelectorAll('#gallery-rows tr:not([hidden])')].map(row => row.dataset.room)"
    rooms = page.evaluate(shown)
    assert set(rooms) == {"merging"}
    page.locator("#gallery-words").fill("sign")
    assert 0 < len(page.evaluate(shown)) < len(rooms)
    page.locator("#gallery-room").select_option("")
    page.locator("#gallery-words").fill("")
    assert len(page.evaluate(shown)) > 100
    page.close()


def test_a_search_finds_guides_first(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.locator(".md-search__input").press_sequentially("time limit")
    first = page.locator(".md-search-result__item a").first
    first.wait_for(timeout=60_000)
    assert "/generated/systems/" not in first.get_attribute("href")
    page.close()
