"""The report of a comparison in a real browser: no errors and no sideways scrolling of the page, on a phone and on a desk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from graftwork.workflows.compare import compare

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("fake_learners")]

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(_CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_fits_a_phone_and_draws_its_plots(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    plans = [
        "none",
        linear_plan("alone", "reference", rate=0.03),
        linear_plan("fast", "joint"),
        linear_plan("bad", "joint", fail="nan"),
    ]
    found = compare(linear_suite(), plans=plans, steps=8, seeds=2, workers=0, backbone="none", out=tmp_path / "run")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((390, "dark"), (1280, "light")):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            problems: list[str] = []
            page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
            page.on(
                "request", lambda asked, problems=problems: None if asked.url.startswith("file:") else problems.append(asked.url)
            )
            page.goto(found.report.as_uri())
            page.wait_for_function("document.documentElement.dataset.ready === 'true'")
            assert problems == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("#plot-forest .points path.point").count() == 1
            assert "The loss became NaN" in page.locator("#leaderboard table").first.inner_text()
        browser.close()
