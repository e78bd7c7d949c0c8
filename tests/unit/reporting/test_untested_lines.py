"""What was not tested is said, and nothing that is said contradicts ``result.json``: on generated results."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.reporting.report import render_report
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import format_summary
from graftwork.reporting.untested_lines import improving_sentence, untested_lead, untested_line, untested_table

NAMES = ("separate", "shared-trunk", "mmoe", "lightgbm", "lora", "ple", "knn")
REASONS = ("too slow: 0.2 s per step", "no pretrained backbone is installed", "cannot be trained here: out of memory")
CUTS = {
    "seeds": "trainings of every finalist",
    "control_seeds": "trainings of every control with shuffled companions",
    "control_tasks": "tasks with a control with shuffled companions",
    "finalists": "finalists besides those that answer a question",
}


@st.composite
def results(draw: st.DrawFn) -> dict[str, Any]:
    left_out = draw(st.lists(st.sampled_from(NAMES[2:]), unique=True))
    items: list[dict[str, Any]] = [{"what": "plan", "name": name, "reason": draw(st.sampled_from(REASONS))} for name in left_out]
    whole = draw(st.sampled_from(["", "sharing", "controls"]))
    if whole:
        items.append({"what": whole, "name": f"all {whole}", "reason": "there was no time"})
    for what in draw(st.lists(st.sampled_from(sorted(CUTS)), unique=True)):
        planned = draw(st.integers(1, 9))
        given_ = draw(st.integers(0, planned - 1))
        reason = f"the time limit allows {given_} of {planned} {CUTS[what]}"
        items.append({"what": what, "name": CUTS[what], "planned": planned, "given": given_, "reason": reason})
    finished = [name for name in NAMES if name not in left_out]
    plans = {name: {"finalist": True, "still_improving": draw(st.booleans())} for name in finished}
    verdict = {"choice": draw(st.sampled_from(finished)), "reference": "separate"}
    return {"format": "graftwork-fit-1", "not_tested": items, "plans": plans, "verdict": verdict}


def check(result: dict[str, Any]) -> None:
    """Read the sentences as a suspicious person would; shares no code with what writes them."""
    view = ResultView(result)
    line, lead, items = untested_line(view), untested_lead(view), result["not_tested"]
    left_out = {item["name"]: item["reason"] for item in items if item["what"] == "plan"}
    cuts = {item["name"]: item for item in items if "planned" in item}
    whole = {item["what"] for item in items} & {"sharing", "controls"}
    told, _, improving = line.partition("Trainings of ") if "Trainings of " in line else (line, "", "")
    # The number of plans and every name.
    found = re.search(r"(\d+) plans? \(([^)]*?)(?: and (\d+) more)?\)", told)
    assert bool(found) == bool(left_out)
    if found:
        names = re.findall(r"`([^`]+)`", found[2])
        assert int(found[1]) == len(left_out) == len(names) + int(found[3] or 0)
        assert set(names) <= set(left_out)
    # Every cut number with its difference; none where the whole is missing.
    for name, item in cuts.items():
        said = f"{item['planned'] - item['given']} of {item['planned']} {name}" in told
        assert said == (f"{item['given']} of {item['planned']} {name}" in lead)
        assert said == (not (whole and item["what"].startswith("control")))
    assert ("sharing (there was no time)" in told) == ("sharing" in whole)
    assert ("all controls" in told) == ("controls" in whole)
    for what in ("sharing", "controls"):
        assert (f"all {what} (there was no time)" in lead) == (what in whole)
    # Who was still improving, both ways.
    said_improving = set(re.findall(r"`([^`]+)`", improving))
    spoken_of = {result["verdict"]["reference"], result["verdict"]["choice"]}
    assert said_improving == {name for name in spoken_of if result["plans"].get(name, {}).get("still_improving")}
    for name in said_improving:
        role = "reference" if name == result["verdict"]["reference"] else "chosen plan"
        assert f"the {role} `{name}`" in improving
    assert improving_sentence(view) in lead
    # No plan is both finished and left out, and every reason belongs to its plan.
    for group, reason in re.findall(r"((?:`[^`]+`(?:, )?)+)(?: and \d+ more)? \(([^)]*)\)", lead):
        for name in re.findall(r"`([^`]+)`", group):
            assert left_out[name] == reason
            assert name not in result["plans"]
    table = untested_table(view)
    rows = [
        (name, row[1].text)  # type: ignore[union-attr]
        for row in (() if table is None else table.rows)
        for name in row[0].text.split(", ")  # type: ignore[union-attr]
    ]
    assert set(left_out.items()) <= set(rows)
    assert {name for name, why in rows if "still improving" in why} == {
        name for name, plan in result["plans"].items() if plan["still_improving"]
    }
    assert (line == "") == (not left_out and not cuts and not whole and not said_improving)


@given(result=results())
def test_no_sentence_contradicts_the_result(result: dict[str, Any]) -> None:
    check(result)
    summary = " ".join(format_summary(result, 100).split())
    assert " ".join(untested_line(ResultView(result)).split()) in summary


def test_the_checker_finds_what_is_wrong() -> None:
    result = {
        "format": "graftwork-fit-1",
        "not_tested": [{"what": "plan", "name": "knn", "reason": "too slow"}],
        "plans": {"separate": {"still_improving": True}},
        "verdict": {"choice": "separate", "reference": "separate"},
    }
    check(result)
    view = ResultView(result)
    wrong = {**result, "plans": {"separate": {"still_improving": False}}}
    assert untested_line(ResultView(wrong)) != untested_line(view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "untested_line", lambda _: "Not tested: 2 plans (`knn`).")
        with pytest.raises(AssertionError):
            check(result)


def test_words() -> None:
    items = [{"what": "plan", "name": name, "reason": REASONS[0]} for name in ("mmoe", "ple", "lora", "knn")]
    items.append({"what": "seeds", "name": CUTS["seeds"], "planned": 3, "given": 1, "reason": "r"})  # type: ignore[dict-item]
    result = {
        "format": "graftwork-fit-1",
        "not_tested": items,
        "plans": {"separate": {"still_improving": True}, "shared-trunk": {"still_improving": True}},
        "verdict": {"choice": "shared-trunk", "reference": "separate"},
    }
    improving = (
        "Trainings of the reference `separate` and of the chosen plan `shared-trunk` were still improving at their last step, or were "
        "cut: longer ones may change the comparison."
    )
    assert untested_line(ResultView(result)) == (
        "Not tested: 4 plans (`mmoe`, `ple`, `lora` and 1 more); 2 of 3 trainings of every finalist; report.html has the reasons. "
        + improving
    )
    assert untested_lead(ResultView(result)) == (
        "The verdict says nothing of `mmoe`, `ple`, `lora` and 1 more (too slow: 0.2 s per step). The time sufficed for 1 of 3 "
        "trainings of every finalist. " + improving
    )
    page = render_report(result)
    assert "What was not tested" in page
    assert page.count("of the chosen plan <code>shared-trunk</code> were still improving") == 2


def test_nothing_is_said_where_all_was_tested() -> None:
    for result in ({"format": "graftwork-fit-1"}, {"format": "graftwork-fit-1", "not_tested": [], "plans": {"a": {}}}):
        assert untested_line(ResultView(result)) == "" == untested_lead(ResultView(result))
        assert untested_table(ResultView(result)) is None
        assert "Not tested" not in format_summary(result, 80)
