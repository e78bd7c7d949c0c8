from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from graftwork.core import source_hash
from graftwork.core.card_search import find_cards, nearest_cards
from graftwork.core.cards import Card, load_cards, read_card
from graftwork.core.errors import ConfigError
from graftwork.core.verdicts import EVIDENCE_FORMAT

GOOD = """
slug = "good"
title = "A good method"
year = 2020
room = "merging"
kind = "method"
summary = "Merges well."
claim = "Better by 1 point."
"""


def write_card(folder: Path, text: str = GOOD, name: str = "good") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_a_card_with_its_defaults(tmp_path: Path) -> None:
    card = read_card(write_card(tmp_path))
    assert (card.slug, card.year, card.components, card.plans) == ("good", 2020, (), ())
    assert card.status == "planned"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'summry = "x"\n', r"unknown key 'summry'\. Did you mean 'summary'\? Known keys: .*slug"),
        (GOOD.replace('"merging"', '"mergin"'), r"no room 'mergin'\. Did you mean 'merging'\? Allowed: adaptation"),
        (GOOD.replace('slug = "good"', 'slug = "Good"'), r"slug 'Good' is not the name of the file, 'good'"),
        (GOOD.replace("year = 2020\n", ""), r"missing key 'year'"),
        (GOOD.replace("2020", '"2020"'), r"year is a number; got '2020'"),
        (GOOD + 'tags = "one"\n', r"tags is a list of texts; got 'one'"),
        (GOOD + 'components = ["graftwork.methods"]\nrecipe = "graftwork.recipes.x"\n', r"dotted paths 'graftwork.module:Name'"),
        (GOOD + 'components = ["graftwork.core.errors:DataError"]\n', r"a card with components names its recipe"),
        ("slug = ", r"not valid TOML"),
        ("year = " + "7" * 6_000, r"not valid TOML: Exceeds the limit"),
        ("year = 0x" + "f" * 6_000, r"not valid TOML: it holds an integer of 24,000 bits"),
        ("tags = " + "[" * 5_000, r"not valid TOML: it is nested too deeply"),
    ],
)
def test_refuses_a_bad_card(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_card(write_card(tmp_path, text))


def test_lists_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_card(write_card(tmp_path, GOOD.replace('"method"', '"thing"') + "other = 1\n"))
    assert len(caught.value.problems) == 2


def test_refuses_two_cards_of_one_paper(tmp_path: Path) -> None:
    write_card(tmp_path, GOOD + 'arxiv = "2001.00001"\n')
    write_card(tmp_path, GOOD.replace('"good"', '"good-too"') + 'arxiv = "2001.00001"\n', "good-too")
    with pytest.raises(ConfigError, match=r"share '2001.00001': 'good-too' and 'good'"):
        load_cards(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "rep-mtl",
        "REP-MTL",
        "2507.21049",
        "arXiv:2507.21049v1",
        "https://arxiv.org/abs/2507.21049",
        "arxiv.org/pdf/2507.21049.pdf",
    ],
)
def test_finds_a_card_by_slug_and_paper(words: str) -> None:
    assert [card.slug for card in find_cards(words)] == ["rep-mtl"]


def test_finds_by_words_best_first() -> None:
    hits = [card.slug for card in find_cards("model merging")]
    assert {"ties", "fisher-merging"} <= set(hits)
    assert all(
        any("merging" in text.lower() for text in (card.title, *card.tags, card.room)) for card in find_cards("merging")[:3]
    )


def test_every_word_must_fit() -> None:
    assert find_cards("merging zebra") == []
    assert find_cards("   ") == []


def test_names_the_nearest() -> None:
    assert nearest_cards("rep-mlt")[0].slug == "rep-mtl"
    assert nearest_cards("qqqqqqqqqq") == []


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A built card over two modules in a package folder of its own."""
    monkeypatch.setattr("graftwork.core.cards.PACKAGE_FOLDER", tmp_path)
    monkeypatch.setattr(source_hash, "PACKAGE_FOLDER", tmp_path)
    (tmp_path / "part.py").write_text('"""Doc."""\nFACTOR = 2\n', encoding="utf-8")
    (tmp_path / "recipe.py").write_text("def run():\n    return 1\n", encoding="utf-8")
    card = read_card(write_card(tmp_path, GOOD + 'components = ["graftwork.part:FACTOR"]\nrecipe = "graftwork.recipe"\n'))
    assert card.status == "no evidence"
    card.evidence_file.parent.mkdir(parents=True)
    evidence = {
        "format": EVIDENCE_FORMAT,
        "verdict": "holds",
        "evidence_hash": card.evidence_hash(),
        "bytes_hash": card.bytes_hash(),
    }
    card.evidence_file.write_text(json.dumps(evidence), encoding="utf-8")
    return replace(card)


def test_fresh_evidence_is_a_verdict(built: Card) -> None:
    assert built.status == "holds"
    assert built.stale_reason == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"smoke": {"changed": ["seed 0"]}}, "smoke numbers no longer come out"),
        ({"pilot": {"chosen": {"mine": {"rate": 1}}}, "chosen": {"mine": {"rate": 2}}}, "a later pilot chose other settings"),
    ],
)
def test_what_makes_evidence_stale_is_said(built: Card, change: dict[str, object], reason: str) -> None:
    stored = json.loads(built.evidence_file.read_text(encoding="utf-8"))
    built.evidence_file.write_text(json.dumps({**stored, **change}), encoding="utf-8")
    assert built.status == "stale"
    assert reason in built.stale_reason


def test_comments_docstrings_and_layout_keep_evidence_fresh(built: Card, tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text('"""Other words."""\n\n# why two\nFACTOR = (2)\n', encoding="utf-8")
    assert built.status == "holds"


@pytest.mark.parametrize(("file", "text"), [("part.py", "FACTOR = 3\n"), ("recipe.py", "def run():\n    return 2\n")])
def test_changed_code_makes_evidence_stale(built: Card, tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert built.status == "stale"
    assert built.stale_reason == "the code, the recipe or the claim changed since the run"


def test_changed_claim_makes_evidence_stale(built: Card) -> None:
    assert replace(built, claim="Better by 2 points.").status == "stale"


@pytest.mark.parametrize("content", ["", "[]", '{"format": "graftwork-evidence-2"}'])
def test_unusable_evidence_counts_as_none(built: Card, content: str) -> None:
    built.evidence_file.write_text(content, encoding="utf-8")
    assert built.status == "no evidence"


@pytest.mark.parametrize("change", [{"format": "graftwork-evidence-1"}, {"verdict": "does not hold"}])
def test_words_of_earlier_rules_are_no_verdict(built: Card, change: dict[str, str]) -> None:
    stored = json.loads(built.evidence_file.read_text(encoding="utf-8"))
    built.evidence_file.write_text(json.dumps({**stored, **change}), encoding="utf-8")
    assert built.status == "stale"
    assert "judged by earlier rules" in built.stale_reason
    assert built.is_evidence_fresh, "the measurements are those of today's code all the same"


def test_missing_module_is_named(built: Card, tmp_path: Path) -> None:
    (tmp_path / "part.py").unlink()
    assert built.status == "stale"
    with pytest.raises(ConfigError, match=r"names a module that does not exist: .*part\.py"):
        built.evidence_hash()


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from graftwork.core.cards import load_cards; from graftwork.core.card_search import find_cards; load_cards(); find_cards('merging');"
        "[card.status for card in load_cards().values()];"
        "print([name for name in ('torch', 'numpy', 'pandas', 'yaml', 'rich', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)//http://a.org",
        "data:text/html,x",
        "file:///etc/passwd",
        "//a.org",
        "http://a.org/) [x](javascript:alert(1)",
        'https://a.org/"onclick="x',
        "https://a b.org",
        "ftp://a.org",
    ],
)
def test_links_of_cards_are_web_addresses(tmp_path: Path, link: str) -> None:
    path = write_card(tmp_path, f"{GOOD}\nlink = {json.dumps(link)}\n")
    with pytest.raises(ConfigError, match="link is an address that begins with http:// or https://"):
        read_card(path)
    good = write_card(tmp_path, f'{GOOD}\nlink = "https://arxiv.org/abs/1706.05098"\n')
    assert read_card(good).link == "https://arxiv.org/abs/1706.05098"
    assert all(card.link.startswith(("http://", "https://")) for card in load_cards().values() if card.link)
