from __future__ import annotations

import argparse
import json
from types import ModuleType

import pytest

from graftwork.cli import show, systems
from graftwork.cli.tables import format_table, paragraph
from graftwork.core.cards import load_cards
from graftwork.core.errors import ConfigError


def call(verb: ModuleType, *words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return int(verb.run(parser.parse_args(words)))


def test_lists_every_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(systems) == 0
    text = capsys.readouterr().out
    assert all(f"\n{slug} " in text for slug in load_cards())
    assert "142 systems: " in text


def test_what_is_built_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    call(systems, "--json")
    planned = [item["status"] == "planned" for item in json.loads(capsys.readouterr().out)]
    assert planned == sorted(planned)
    assert not planned[0]


def test_filters_by_room_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    call(systems, "--room", "merging", "--json")
    listed = json.loads(capsys.readouterr().out)
    assert {item["room"] for item in listed} == {"merging"}
    call(systems, "--verdict", "planned", "--json")
    assert {item["status"] for item in json.loads(capsys.readouterr().out)} == {"planned"}


def test_unknown_filters_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no room 'mergin'; allowed: adaptation.* Did you mean 'merging'\?"):
        call(systems, "--room", "mergin")
    with pytest.raises(ConfigError, match=r"no verdict 'hold'; allowed: planned.* Did you mean 'holds'\?"):
        call(systems, "--verdict", "hold")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_tables_fit_the_terminal(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    call(systems)
    table = capsys.readouterr().out.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= max(width, 68)


def test_shows_one_card_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(show, "arXiv:2306.01708") == 0
    text = capsys.readouterr().out
    card = load_cards()["ties"]
    assert text.startswith(f"ties: {card.title}")
    assert "arXiv:2306.01708" in text
    for words in (card.claim, card.summary, *card.essentials):
        assert words.split()[-1] in text


def test_shows_a_list_for_several_hits(capsys: pytest.CaptureFixture[str]) -> None:
    call(show, "model", "merging")
    text = capsys.readouterr().out
    assert "ties" in text
    assert "systems fit 'model merging', the best first" in text


def test_says_what_is_near_when_nothing_fits() -> None:
    with pytest.raises(ConfigError, match=r"No system fits 'multitap'\. Nearest: multitab"):
        call(show, "multitap")


def test_planned_systems_say_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    planned = next(card for card in load_cards().values() if not card.is_built)
    call(show, planned.slug)
    assert f"graftwork new method {planned.room} {planned.slug}" in capsys.readouterr().out


def test_json_holds_card_and_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    call(show, "ties", "--json")
    item = json.loads(capsys.readouterr().out)[0]
    assert {"slug", "claim", "status", "evidence", "components"} <= set(item)


def test_findings_show_their_numbers() -> None:
    finding = {
        "state": "refuted",
        "name": "beats it",
        "primary": False,
        "left_mean": 2.0,
        "right_mean": 1.0,
        "difference": {"value": 1.0, "low": -0.5, "high": 2.5},
        "unit": "points",
        "signs": 3,
        "differences": [1, 2, 3, -1],
    }
    text = show.findings_table([finding], 110)
    assert text.splitlines()[-1].split() == [
        "refuted",
        "beats",
        "it",
        "(secondary)",
        "2.000",
        "1.000",
        "+1.00",
        "points",
        "[-0.50,",
        "+2.50]",
        "3/4",
    ]
    narrow = show.findings_table([finding | {"name": "a name that is much too long for a line of so few characters"}], 80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    assert "left" not in narrow.splitlines()[0].split()


def test_cells_are_cut_with_an_ellipsis_and_numbers_stand_right() -> None:
    text = format_table(["name", "n"], [["a" * 40, "7"], ["b", "123"]], width=20, stretch=0, right=(1,))
    assert text.splitlines() == ["name               n", "---------------  ---", "aaaaaaaaaaaaaa…    7", "b                123"]


def test_cells_are_wrapped_where_that_is_asked_for() -> None:
    rows = [["one two three four", "7"], ["b", "123"]]
    text = format_table(["name", "n"], rows, width=17, stretch=0, right=(1,), wrap=True)
    assert text.splitlines() == ["name            n", "------------  ---", "one two         7", "three four", "b             123"]


def test_paragraphs_hang_under_their_label() -> None:
    assert paragraph("one two three four five", width=26, label="x", indent=6) == "x     one two three four\n      five"
