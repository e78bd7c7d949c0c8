from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftwork.core.errors import FileFormatError, StorageError
from graftwork.reporting.parts import Figure, Table
from graftwork.reporting.report import render_report, report_sections, write_report
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import format_summary

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&</script><!--"


class Page(HTMLParser):
    """Tags, identifiers and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def _sections(result: dict[str, Any]) -> dict[str, Any]:
    return {section.key: section for section in report_sections(ResultView(result))}


def _figures(result: dict[str, Any]) -> Iterator[Figure]:
    for section in report_sections(ResultView(result)):
        yield from section.figures


def test_page_says_everything(build_result, tmp_path) -> None:
    result = build_result("image")
    write_report(result, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for sentence in (
        *(text.replace("`", "") for text in result["verdict"]["sentences"]),
        result["verdict"]["source_sentence"],
        *result["verdict"]["warnings"],
    ):
        assert sentence in page.text
    assert page.count("code") == 3, "two quoted names and the command"
    for words in (
        "Clear result",
        "graftwork fit",
        "Twemoji by Twitter and contributors, CC-BY 4.0",
        "postcode",
        "regularisation",
        "5 min 12 s",
    ):
        assert words in page.text
    identifiers = {attributes.get("id") for _, attributes in page.tags}
    assert {
        "tasks",
        "gain",
        "affinity",
        "controls",
        "source",
        "domain",
        "costs",
        "race",
        "examples",
        "data",
        "repeat",
    } <= identifiers
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert all(link is not None and link.removeprefix("#") in identifiers for link in links)
    assert sum("data-plot" in attributes for _, attributes in page.tags) == 5


def test_page_reaches_for_nothing_outside(build_result) -> None:
    page = Page(render_report(build_result("image")))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "form")
        assert not (tag == "script" and "src" in attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("modality", ["image", "table"])
def test_every_plot_has_a_table_and_a_sentence(build_result, modality) -> None:
    figures = list(_figures(build_result(modality)))
    assert [figure.name for figure in figures] == ["forest", "change", "affinity", "pareto", "race"]
    for figure in figures:
        assert len(figure.summary) > 40
        assert figure.table.rows
        assert {len(row) for row in figure.table.rows} == {len(figure.table.headers)}


@pytest.mark.slow
def test_plots_are_valid_for_plotly(build_result) -> None:
    import plotly.graph_objects as go

    for figure in _figures(build_result("table", model=True)):
        plain = re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps({"data": figure.data, "layout": figure.layout}))
        assert len(go.Figure(json.loads(plain)).data) == len(figure.data)


def test_colours_used_in_plots_are_in_the_style_sheet(build_result) -> None:
    page = render_report(build_result("image", model=True))
    used = {
        name
        for figure in _figures(build_result("image", model=True))
        for name in re.findall(r"var\((--[a-z0-9-]+)\)", json.dumps([*figure.data, figure.layout]))
    }
    assert len(used) > 5
    for name in used:
        assert page.count(f"{name}: #") == 3, f"{name} needs a value for light, dark and chosen dark"


def _poison(value: Any) -> Any:
    """Put the attack into every text that can come from the user's data."""
    if isinstance(value, dict):
        return {key: _poison(item) if key not in ("format", "form", "kind", "label", "status", "strength", "metric", "modality") else item
                for key, item in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [_poison(item) for item in value]
    return value + ATTACK if isinstance(value, str) else value


def test_text_from_the_user_stays_text(build_result) -> None:
    clean = Page(render_report(build_result("image", model=True)))
    result = _poison(build_result("image", model=True))
    result["diagnostics"] = {f"{task}{ATTACK}": found for task, found in result["diagnostics"].items()}
    result["suite"]["columns"] = {f"{name}{ATTACK}": fate for name, fate in result["suite"]["columns"].items()}
    names = {name: name + ATTACK for name in build_result("image")["plans"]}
    result["plans"] = {names[name]: plan for name, plan in result["plans"].items()}
    for plan in result["plans"].values():
        for part in ("test", "relative", "transfer"):
            plan[part] = {f"{task}{ATTACK}": scores for task, scores in (plan[part] or {}).items()}
    text = render_report(result)
    page = Page(text)
    for tag in ("script", "section", "table"):
        assert page.count(tag) == clean.count(tag), tag
    assert not any(any(key.startswith("on") for key in attributes) for _, attributes in page.tags)
    assert "<script>alert(1)" not in text
    assert "onerror=alert(2)>" not in text.replace("&gt;", "")
    assert page.count("img") == 0, "pictures with anything but base64 in them are left out"
    assert "category<script>alert(1)" in page.text
    assert "postcode<script>alert(1)" in page.text


def test_links_lead_into_the_page_alone(build_result) -> None:
    result = _poison(build_result("table", model=True))
    result["suite"]["name"] = "javascript:alert(1)"
    result["verdict"]["sentences"] = ["[here](javascript:alert(1)) and javascript:alert(2)"]
    targets = [attributes["href"] for _, attributes in Page(render_report(result)).tags if "href" in attributes]
    assert targets
    assert all(target.startswith("#") for target in targets), targets


def test_only_embedded_raster_pictures_are_shown(build_result) -> None:
    result = build_result("image")
    result["examples"][0]["picture"] = "https://example.org/a.png"
    result["examples"][1]["picture"] = "data:image/svg+xml;base64,PHN2Zz4="
    result["examples"][2]["picture"] = "data:text/html;base64,AAAA"
    assert [bool(example.picture) for example in _sections(result)["examples"].examples] == [False] * 3 + [True] * 5


def test_a_race_cut_short_still_makes_a_page(build_result) -> None:
    full = build_result("image")
    short = {key: full[key] for key in ("format", "version", "command", "suite", "race")}
    assert set(_sections(short)) == {"race", "data"}
    page = Page(render_report(short))
    assert "The race ended before a verdict could be reached." in page.text
    assert "--resume" in page.text
    bare = Page(render_report({"format": "graftwork-fit-1"}))
    assert bare.count("script") == 2, "without plots no plotting library is needed"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_may_be_missing(build_result, data) -> None:
    result = copy.deepcopy(build_result(data.draw(st.sampled_from(["image", "table"])), model=True))
    for key in data.draw(st.sets(st.sampled_from(sorted(set(result) - {"format"})))):
        result[key] = data.draw(st.sampled_from([None, type(result[key])()]))
    for plan in (result["plans"] or {}).values():
        for key in data.draw(st.sets(st.sampled_from(["test", "delta_m", "relative", "transfer", "ledger", "plan"]))):
            plan[key] = None
    sections = report_sections(ResultView(result))
    assert all(not section.is_empty for section in sections)
    for section in sections:
        for part in (*section.parts, *section.figures, *section.folded):
            table = part.table if isinstance(part, Figure) else part
            if isinstance(table, Table):
                assert {len(row) for row in table.rows} == {len(table.headers)}
    assert format_summary(result, 80)


def test_other_files_are_refused(tmp_path) -> None:
    for value in ({}, {"format": "graftwork-fit-9"}, []):
        with pytest.raises(FileFormatError, match="no result of graftwork fit.*graftwork-fit-1"):
            render_report(value)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_report({"format": "graftwork-fit-1"}, tmp_path / "file" / "report.html")


def test_scores_of_another_domain_need_the_tasks_of_the_suite(build_result) -> None:
    result = build_result("image")
    assert "domain" in _sections(result)
    result["suite"] = result["affinity"] = None
    assert "domain" not in _sections(result)


def test_equal_numbers_are_promised_only_where_the_steps_are_given(build_result) -> None:
    result = build_result("table")
    for steps, promised in ((600, True), (None, False)):
        page = render_report({**result, "settings": {**result.get("settings", {}), "steps": steps}})
        assert ("this gives the same numbers" in page) is promised
        assert ("with --steps it repeats exactly" in page) is not promised


@pytest.mark.parametrize(("seconds", "converged", "is_early"), [(312.4, True, False), (100.0, True, True), (100.0, False, False)])
def test_a_run_that_ended_early_says_why(build_result, seconds: float, converged: bool, is_early: bool) -> None:
    result = build_result("table")
    result["settings"] = {**result.get("settings", {}), "time_limit": 330.0}
    result["timing"] |= {"seconds": seconds, "converged": converged}
    assert ("it ended early, since nothing improved any more" in render_report(result)) is is_early


def test_nothing_is_said_of_a_judgement_where_nothing_was_compared(build_result) -> None:
    result = build_result("table")
    assert "and the judgement against separate models" in render_report(result)
    assert "The sign and the words compare with separate models" in render_report(result)
    page = render_report({**result, "comparisons": []})
    assert "Test scores with 95" in page
    assert "judgement against separate models" not in page
    assert "The sign and the words compare" not in page
