"""plotly.js in the package: the file that it says it is, small enough for a page, and one with what the figures use."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from importlib.resources import files
from pathlib import Path

import pytest

from graftwork.reporting.report import render_report, report_sections
from graftwork.reporting.result_view import ResultView

FOLDER = files("graftwork.reporting") / "plotly"
LIBRARY = FOLDER / "plotly-cartesian.min.js"
VERSION = "4.1.1"
SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
MOST_BYTES = 2_000_000


def test_the_file_is_the_published_one() -> None:
    assert hashlib.sha256(LIBRARY.read_bytes()).hexdigest() == SHA256
    assert f"plotly.js (cartesian - minified) v{VERSION}\n" in LIBRARY.read_text("utf-8")[:200]
    origin = (FOLDER / "README.md").read_text("utf-8")
    assert f"`plotly.js-cartesian-dist-min` {VERSION}" in origin
    assert SHA256 in origin
    assert "MIT License" in (FOLDER / "LICENSE").read_text("utf-8")


def test_the_file_cannot_end_the_script_it_stands_in() -> None:
    text = LIBRARY.read_text("utf-8").lower()
    assert "</script" not in text
    assert "<!--" not in text


def test_figures_are_checked_against_the_schema_of_the_same_version() -> None:
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        pytest.skip("the Python package plotly is not installed")
    head = (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text("utf-8")[:200]
    version = re.search(r"plotly\.js v(\d+)\.(\d+)", head)
    assert version is not None
    assert list(version.groups()) == VERSION.split(".")[:2]


@pytest.mark.parametrize("modality", ["image", "table"])
def test_a_page_is_small_beside_its_pictures(build_result, modality) -> None:
    result = build_result(modality, model=True)
    page = render_report(result)
    assert LIBRARY.read_text("utf-8") in page
    assert len(re.sub(r"data:image/[^\"]+", "", page).encode()) < MOST_BYTES
    figures = [figure for section in report_sections(ResultView(result)) for figure in section.figures]
    assert {trace["type"] for figure in figures for trace in figure.data} <= {"scatter", "bar", "heatmap"}
