from __future__ import annotations

import pytest
import yaml

from graftwork.core.errors import FileFormatError
from graftwork.core.records import Lineage
from graftwork.reporting.model_card import model_card_text, write_model_card
from graftwork.reporting.tables import format_summary


@pytest.mark.parametrize("width", [40, 64, 80, 120])
@pytest.mark.parametrize("modality", ["image", "table"])
def test_summary_fits_the_terminal(build_result, modality, width) -> None:
    text = format_summary(build_result(modality), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    for word in ("shared-trunk", "separate", "transfer", "regularisation", "5 min 12 s"):
        assert word in text


def test_summary_of_a_race_without_verdict() -> None:
    text = format_summary({"format": "graftwork-fit-1"}, 80)
    assert text.startswith("NO VERDICT")
    assert "--resume" in text


def test_names_cannot_steer_the_terminal(build_result) -> None:
    result = build_result("table")
    result["suite"]["tasks"][0]["name"] = "\x1b[31mred[bold]"
    result["verdict"]["sentences"] = ["Use \x1b]0;title\x07 this."]
    text = format_summary(result, 100)
    assert "\x1b" not in text
    assert "[31mred[bold]" in text


def test_card_has_front_matter_and_all_parts(build_result, tmp_path) -> None:
    lineage = Lineage(
        made_by="graftwork fit 0.1.0", command="graftwork fit", plan="frozen-heads", seed=0, inputs={"a.zip": "ff"}, bases={"lite0": "ee"},
        licences={"lite0": "Apache-2.0"},
    )  # fmt: skip
    write_model_card(build_result("image"), tmp_path / "README.md", lineage=lineage)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["library_name"] == "graftwork"
    assert front["base_model"] == ["lite0"]
    assert [item["task"]["name"] for item in front["model-index"][0]["results"]] == [
        "category",
        "subcategory",
        "mean colour",
        "ink share",
    ]
    for words in (
        "## Intended use", "## Tasks", "## Results", "## Limits and warnings", "Only 316 test rows", "0123456789abcdef" * 4,
        "SHA-256 `ff`", "fingerprint `ee`", "Apache-2.0", "CC-BY 4.0", "graftwork predict RUN_FOLDER pictures/",
    ):  # fmt: skip
        assert words in body, words


def test_card_escapes_names(build_result) -> None:
    result = build_result("table")
    result["suite"]["tasks"][0]["classes"] = ["a|b", "<script>"]
    text = model_card_text(result)
    assert "a\\|b" in text
    assert "<script>" not in text
    for line in text.splitlines():
        if line.startswith("| churned |"):
            assert line.replace("\\|", "").count("|") == 5


def test_card_of_a_bare_result() -> None:
    assert "No licence of the data was stated." in model_card_text({"format": "graftwork-fit-1"})
    with pytest.raises(FileFormatError, match="no result"):
        model_card_text({})


def test_of_many_tasks_a_sentence_and_the_extremes_are_shown(build_result) -> None:
    result = build_result("table")
    first, choice = result["suite"]["tasks"][0], result["verdict"]["choice"]
    compared = next(row for row in result["comparisons"] if row["plan"] == choice and row["task"] == first["name"])
    scores = {plan: entry["test"][first["name"]] for plan, entry in result["plans"].items() if entry.get("test")}
    for number in range(100):
        name = f"extra {number:02d}"
        result["suite"]["tasks"].append({**first, "name": name})
        gain = {"value": float(number), "low": number - 1.0, "high": number + 1.0}
        result["comparisons"].append({**compared, "task": name, "difference": gain, "label": "better"})
        for plan, values in scores.items():
            result["plans"][plan]["test"][name] = values
    text = format_summary(result, 100)
    assert "on 105 tasks, against separate models: better on 10" in text
    assert "extra 99" in text
    assert "extra 50" not in text
    assert len(text.splitlines()) < 120


def test_one_plan_alone_is_not_called_the_best_guess() -> None:
    from graftwork.reporting.words import strength_words

    alone = {
        "strength": "open",
        "ship": None,
        "sentences": ["Only `constant` was judged on test rows, so there is nothing to compare it with."],
    }
    assert strength_words(alone, ("", "")) == ("Open", "One plan was judged; nothing was compared.")
    assert "best guess" in strength_words({**alone, "ship": {"label": "unclear"}}, ("", ""))[1]
    assert strength_words({}, ("No verdict", "why")) == ("No verdict", "why")
