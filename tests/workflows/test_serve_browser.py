"""The page of ``graftwork serve`` in a real browser: it opens without a network, predicts, its sliders act, and it fits a
phone."""

from __future__ import annotations

import importlib.util
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.workflows.contrast import faint_texts

from graftwork.serving.app import create_app
from graftwork.serving.engine import Engine

pytestmark = pytest.mark.browser

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


def _run_builder() -> Any:
    path = Path(__file__).parents[1] / "unit" / "serving" / "run_builder.py"
    spec = importlib.util.spec_from_file_location("graftwork_run_builder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if _CHROMIUM is None:
        pytest.skip("Chromium is not installed. Install it with: apt-get install chromium chromium-driver")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield started
        started.close()


class Several(Engine):
    """A server of two models, each asked by its name."""

    def __init__(self, run: Path, other: Path) -> None:
        super().__init__(run, threads=1)
        self.other = Engine(other, threads=1)

    @property
    def models(self) -> dict[str, Any]:
        return {"first": self, "second": self.other}

    @property
    def only_model(self) -> None:  # type: ignore[override]
        return None

    def close(self) -> None:
        super().close()
        self.other.close()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Servers of a table, one with many levels, a text, a controllable picture model, and a table model behind a token."""
    import uvicorn

    builder, root = _run_builder(), tmp_path_factory.mktemp("runs")
    started: list[tuple[Any, threading.Thread, Engine]] = []
    found = {}
    runs = {
        "table": builder.write_table_run(root / "table"),
        "many levels": builder.write_table_run(root / "many levels", further_cities=1000),
        "text": builder.write_text_run(root / "text"),
        "series": builder.write_series_run(root / "series"),
        "two channels": builder.write_series_run(root / "two channels", channels=2),
        "series columns": builder.write_series_run(root / "series columns", columns=["north", "south"]),
        "controllable": builder.write_controllable_run(root / "controllable"),
        "locked": builder.write_table_run(root / "locked"),
    }
    engines = {name: Engine(run, threads=1) for name, run in runs.items()}
    engines["several"] = Several(runs["table"], runs["text"])
    for name, engine in engines.items():
        application = create_app(engine, token="secret" if name == "locked" else None)
        server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        started.append((server, thread, engine))
        end = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        found[name] = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    yield found
    for server, thread, engine in started:
        server.should_exit = True
        thread.join(30)
        engine.close()


class Visit:
    """An open page, with everything it asked others for and everything it complained about."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.address = address
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]", timeout=30_000)

    def wait(self, condition: str) -> None:
        """Wait for a JavaScript expression; the page's own security policy rules out playwright's ``wait_for_function``."""
        end = time.monotonic() + 60
        while not self.page.evaluate(f"() => Boolean({condition})"):
            assert time.monotonic() < end, f"never became true: {condition}"
            self.page.wait_for_timeout(50)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def close(self, *, complaints: int = 0) -> None:
        base = self.address.split("/", 3)[:3]
        assert [url for url in self.requests if url.split("/", 3)[:3] != base and not url.startswith(("data:", "blob:"))] == []
        assert len(self.complaints) == complaints, self.complaints
        assert self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        self.context.close()


def picture(colour: tuple[int, int, int]) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": file.getvalue()}


@pytest.mark.parametrize("width", [360, 1280])
def test_a_table_is_predicted_at_once_and_answers_follow_changes(browser: Any, addresses: dict[str, str], width: int) -> None:
    visit = Visit(browser, addresses["table"], width)
    visit.wait("document.querySelectorAll('#results article').length === 3")
    visit.page.locator("select[name=city]").select_option("Lima")
    visit.wait("document.querySelector('#results article:nth-child(3) .value').textContent === 'Lima'")
    visit.page.locator("select[name=city]").select_option("Oslo")
    visit.wait("document.querySelector('#results article:nth-child(3) .value').textContent === 'Oslo'")
    before = visit.text("#results article .value")
    visit.page.locator("input[name=age]").fill("55")
    visit.wait(f"document.querySelector('#results .value').textContent !== {before!r}")
    assert "ms" in visit.text("#facts")
    served = visit.text("#served")
    assert "number, third, city class" in served
    assert "Run" in served
    visit.page.locator("label.chip", has_text="third").click()
    visit.wait("document.querySelectorAll('#results article').length === 2")
    visit.wait("document.querySelector('#facts').innerText.includes('50 %')")
    visit.page.locator("#same summary").click()
    assert "/predict" in visit.text("#same pre")
    visit.close()


def test_a_level_of_very_many_can_be_typed(browser: Any, addresses: dict[str, str]) -> None:
    visit = Visit(browser, addresses["many levels"], 360)
    visit.wait("document.querySelectorAll('#results article').length === 3")
    assert visit.page.evaluate("document.querySelector('input[name=city]').list.options.length") == 256
    visit.page.locator("input[name=city]").fill("city 999")
    visit.wait("document.querySelector('#results article:nth-child(3) .value').textContent === 'city 999'")
    visit.page.locator("input[name=city]").fill("nowhere")
    visit.wait("document.querySelector('#results article:nth-child(3) .value').textContent === '?'")
    visit.close()


def test_a_text_is_predicted(browser: Any, addresses: dict[str, str]) -> None:
    visit = Visit(browser, addresses["text"])
    assert visit.text("#empty") == "Type a text and press Predict."
    visit.page.locator("#text").fill("good day to you")
    visit.page.locator("#predict").click()
    visit.wait("document.querySelector('#results .value')?.textContent === '4'")
    visit.page.locator("#text").fill("night")
    visit.wait("document.querySelector('#results .value')?.textContent === '1'")
    visit.close()


@pytest.mark.parametrize(
    ("name", "typed", "answer"),
    [
        ("series", {"series": "1, 2 3\n4.5"}, "4.5"),
        ("two channels", {"series": "1 10\n2 20\n3, 30"}, "3"),
        ("series columns", {"north": "1 2", "south": "7 8"}, "2"),
    ],
)
def test_a_series_is_predicted(browser: Any, addresses: dict[str, str], name: str, typed: dict[str, str], answer: str) -> None:
    visit = Visit(browser, addresses[name], 360)
    assert visit.text("#summary") == "Predicts last from a series."
    for field, text in typed.items():
        visit.page.locator(f"textarea[name={field}]").fill(text)
    visit.page.locator("#predict").click()
    visit.wait(f"document.querySelector('#results .value')?.textContent === {answer!r}")
    visit.page.locator("textarea").first.fill("one")
    visit.wait("document.querySelector('#error').innerText.includes('one')")
    visit.close(complaints=1)  # the browser notes the answer with 422


@pytest.mark.parametrize("width", [360, 1280])
def test_sliders_change_the_model_and_its_predictions(browser: Any, addresses: dict[str, str], width: int) -> None:
    visit = Visit(browser, addresses["controllable"], width)
    visit.page.locator("#picture").set_input_files(picture((200, 100, 40)))
    visit.wait("document.querySelectorAll('#results canvas').length === 1")
    red = "document.querySelector('#results .values dd').textContent"
    visit.wait("document.querySelectorAll('#widths li').length === 3")
    full = visit.page.evaluate(red)
    visit.page.locator("#budget").fill("0.6")
    visit.wait(f"{red} !== {full!r}")
    assert "% of the full cost" in visit.text("#controls")
    assert "25 %" in visit.text("#widths li:nth-child(1)"), "the encoder takes what the decoders leave"
    visit.page.locator("#importance-grey").fill("0.1")
    visit.wait("document.querySelector('#widths li:nth-child(3)').innerText.includes('50 %')")
    visit.wait("document.querySelector('#widths li:nth-child(1)').innerText.includes('50 %')")
    assert visit.page.evaluate("document.querySelector('#results canvas').getAttribute('aria-label')").startswith("grey: from")
    visit.close()


def test_a_locked_server_asks_for_its_token(browser: Any, addresses: dict[str, str]) -> None:
    visit = Visit(browser, addresses["locked"], 390)
    assert not visit.page.locator("#work").is_visible()
    visit.page.locator("#token").fill("wrong")
    visit.page.locator("#token-form button").click()
    visit.page.locator("#token").fill("secret")
    visit.page.locator("#token-form button").click()
    visit.wait("document.querySelectorAll('#results article').length === 3")
    assert not visit.page.locator("#token-form").is_visible()
    visit.close(complaints=2)  # the browser notes both answers with 401


@pytest.mark.parametrize(("name", "width"), [("table", 360), ("controllable", 1280)])
def test_the_api_page_lists_paths_and_fields(browser: Any, addresses: dict[str, str], name: str, width: int) -> None:
    visit = Visit(browser, f"{addresses[name]}docs", width)
    text = visit.text("#paths")
    assert text.index("POST /predict") < text.index("GET /health")
    assert ("age" if name == "table" else "picture-base64") in text
    assert ("from rows of a table." if name == "table" else "from pictures.") in visit.text("#summary")
    assert "string, number" not in text
    visit.close()


def test_dark_mode_and_the_keyboard(browser: Any, addresses: dict[str, str]) -> None:
    light, dark = (Visit(browser, addresses["table"], 390, scheme) for scheme in ("light", "dark"))
    colour = "getComputedStyle(document.body).backgroundColor"
    assert light.page.evaluate(colour) != dark.page.evaluate(colour)
    for visit in (light, dark):
        visit.wait("document.querySelectorAll('#results article').length === 3")
        # While it waits for an answer the last one is pale.
        visit.wait("getComputedStyle(document.querySelector('#answer')).opacity === '1'")
        assert faint_texts(visit.page) == []
    dark.page.keyboard.press("Tab")
    assert dark.page.evaluate("document.activeElement.className") == "skip"
    unnamed = "[...document.querySelectorAll('input, select, textarea')].filter(item => !item.labels.length).length"
    assert dark.page.evaluate(unnamed) == 0
    light.close()
    dark.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_one_of_several_models_is_chosen_on_the_page(browser: Any, addresses: dict[str, str], width: int) -> None:
    visit = Visit(browser, addresses["several"], width)
    visit.wait("document.querySelectorAll('#results article').length === 3")
    assert "/models/first/predict" in visit.page.locator("#same pre").text_content()
    visit.page.locator("#models select").select_option("second")
    visit.page.wait_for_url("**/?model=second")
    visit.page.wait_for_selector("html[data-ready]")
    visit.page.locator("textarea").fill("good day to you")
    visit.page.locator("#predict").click()
    visit.wait("document.querySelector('#results .value')?.textContent === '4'")
    assert visit.page.locator("#models select").input_value() == "second"
    assert "/models/second/predict" in visit.page.locator("#same pre").text_content()
    visit.close()
