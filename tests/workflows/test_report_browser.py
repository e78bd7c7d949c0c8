"""The report in a real browser: no network, no errors, works on a phone, in the dark and without a mouse."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.workflows.contrast import faint_texts

from graftwork.reporting.report import write_report

pytestmark = pytest.mark.browser

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _build_result(modality: str) -> dict[str, Any]:
    path = Path(__file__).parents[1] / "unit" / "reporting" / "result_builder.py"
    spec = importlib.util.spec_from_file_location("graftwork_result_builder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result: dict[str, Any] = module.build_result(modality, model=True)
    return result


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if _CHROMIUM is None:
        pytest.skip("Chromium is not installed. Install it with: apt-get install chromium chromium-driver")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for modality in ("image", "table"):
        write_report(_build_result(modality), folder / f"{modality}.html")
    return {modality: folder / f"{modality}.html" for modality in ("image", "table")}


class Visit:
    """An open page, with everything it asked the network for and everything it complained about."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    @property
    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait for a JavaScript expression; the page's own security policy rules out playwright's ``wait_for_function``."""
        end = time.monotonic() + 60
        while not self.page.evaluate(f"(argument) => Boolean({condition})", argument):
            assert time.monotonic() < end, f"never became true: {condition}"
            self.page.wait_for_timeout(50)

    def overflow(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def close(self) -> None:
        assert self.complaints == []
        assert self.foreign_requests == []
        self.context.close()


@pytest.mark.parametrize("modality", ["image", "table"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1920])
def test_page_never_scrolls_sideways(browser, reports, modality, width) -> None:
    visit = Visit(browser, reports[modality], width)
    assert visit.overflow() == 0
    visit.page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
    assert visit.overflow() == 0, "tables that were opened must scroll inside their box"
    visit.close()


@pytest.mark.parametrize("width", [1280, 1920])
def test_wide_tables_use_the_screen(browser, reports, width) -> None:
    visit = Visit(browser, reports["table"], width)
    assert visit.page.evaluate("document.querySelector('main').clientWidth") > 0.78 * width
    cut = "[...document.querySelectorAll('section > .scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)"
    assert visit.page.evaluate(f"{cut}.map(box => box.getAttribute('aria-label'))") == []
    table = visit.page.locator("#costs > .scroll table")
    assert table.bounding_box()["width"] > 944
    # Text and narrow tables stay as narrow as they read well.
    assert visit.page.locator("#data .lead").first.bounding_box()["width"] < 800
    assert visit.page.locator("#data .scroll table").nth(1).bounding_box()["width"] < 960
    visit.close()


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_no_label_of_a_plot_is_cut(browser, reports, width) -> None:
    visit = Visit(browser, reports["image"], width)
    cut = visit.page.evaluate("""() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
      const box = plot.getBoundingClientRect();
      const outside = (text) => {
        const own = text.getBoundingClientRect();
        return own.width && (own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1);
      };
      return [...plot.querySelectorAll("svg text")].filter(outside).map((text) => `${plot.id}: ${text.textContent}`);
    })""")
    assert cut == []
    visit.close()


def test_plots_are_drawn_and_answer_to_the_mouse(browser, reports) -> None:
    visit = Visit(browser, reports["image"], 1280)
    empty = "[...document.querySelectorAll('.plot')].filter(plot => !plot.querySelector('svg.main-svg'))"
    assert visit.page.evaluate(f"{empty}.map(plot => plot.id)") == []
    assert visit.page.locator(".plot").count() >= 10
    for kind in (
        "#plot-confusion-0 .heatmaplayer image",
        "#plot-true-3-0 .points path.point",
        "#plot-calibration-0 .errorbars path",
    ):
        assert visit.page.locator(kind).count() > 0, kind
    point = visit.page.locator("#plot-forest .points path.point").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.page.wait_for_selector("#plot-forest .hoverlayer .hovertext", timeout=60_000)
    assert "delta-m" in visit.page.locator("#plot-forest .hoverlayer .hovertext").first.text_content()
    cell = visit.page.locator("#plot-affinity")
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.5)
    visit.page.wait_for_selector("#plot-affinity .hoverlayer .hovertext", timeout=60_000)
    assert "effect on" in visit.page.locator("#plot-affinity .hoverlayer .hovertext").first.text_content()
    visit.close()


def test_every_nav_link_leads_to_its_section(browser, reports) -> None:
    visit = Visit(browser, reports["image"], 1280)
    links = visit.page.locator("nav a")
    assert links.count() >= 10
    for index in range(links.count()):
        link = links.nth(index)
        link.click()
        target = visit.page.locator(link.get_attribute("href"))
        visit.wait(
            "argument.getBoundingClientRect().top < innerHeight && argument.getBoundingClientRect().bottom > 0",
            target.element_handle(),
        )
        assert link.is_visible(), "the navigation stays on screen"
    visit.wait("document.querySelector('nav a[href=\"#repeat\"]').getAttribute('aria-current') === 'true'")
    visit.close()


def test_tables_filter_and_command_work(browser, reports) -> None:
    visit = Visit(browser, reports["image"], 390)
    details = visit.page.locator("figure details.numbers").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("table").is_visible()
    samples = visit.page.locator(".sample:visible")
    assert samples.count() == 8
    visit.page.locator("[data-filter=mistakes]").click()
    assert samples.count() == 4
    assert visit.page.locator("[data-filter=mistakes]").get_attribute("aria-pressed") == "true"
    visit.page.locator("[data-filter=all]").click()
    assert samples.count() == 8
    assert all(visit.page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)"))
    visit.page.locator("#copy").click()
    visit.wait("document.getElementById('copy').textContent === 'Copied'")
    visit.close()


def _colours(visit: Visit) -> tuple[str, str, str]:
    return (
        visit.page.evaluate("getComputedStyle(document.body).backgroundColor"),
        visit.page.evaluate("getComputedStyle(document.querySelector('#plot-forest .xtick text')).fill"),
        visit.page.evaluate("getComputedStyle(document.querySelector('#plot-forest .points path.point')).fill"),
    )


def test_dark_mode_restyles_page_and_plots(browser, reports) -> None:
    visit = Visit(browser, reports["table"], 1280)
    light = _colours(visit)
    visit.page.emulate_media(color_scheme="dark")
    visit.wait("getComputedStyle(document.querySelector('#plot-forest .xtick text')).fill !== '" + light[1] + "'")
    dark = _colours(visit)
    assert len(set(light) & set(dark)) == 0
    assert faint_texts(visit.page) == []
    visit.page.locator("#theme").click()  # from "system" to "light", although the system is dark
    visit.wait("getComputedStyle(document.querySelector('#plot-forest .xtick text')).fill === '" + light[1] + "'")
    assert _colours(visit) == light
    assert faint_texts(visit.page) == []
    visit.close()
    started_dark = Visit(browser, reports["table"], 390, scheme="dark")
    assert _colours(started_dark) == dark
    started_dark.close()


def test_keyboard_reaches_what_scrolls(browser, reports) -> None:
    visit = Visit(browser, reports["image"], 390)
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.className") == "skip"
    missing = visit.page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.tabIndex !== 0 || !box.getAttribute('aria-label')).length"
    )
    assert missing == 0
    visit.close()


def test_print_shows_all_tables_on_white(browser, reports, tmp_path) -> None:
    visit = Visit(browser, reports["image"], 1280, scheme="dark")
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("details:not([open])").count() == 0
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    visit.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert visit.page.locator("details[open]").count() == 0
    visit.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    visit.close()


def test_a_hostile_result_runs_no_code(browser, tmp_path) -> None:
    result = _build_result("table")
    attack = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
    result["verdict"]["sentences"] = [attack]
    result["affinity"]["tasks"] = [f"{attack}{index}" for index in range(5)]
    result["race"][0]["plan"] = attack
    write_report(result, tmp_path / "report.html")
    visit = Visit(browser, tmp_path / "report.html", 1280)
    assert visit.page.title() != "hit"
    assert visit.page.locator("img").count() == 0
    assert "<img" in visit.page.locator("#plot-affinity .xtick text").first.text_content()
    visit.close()
