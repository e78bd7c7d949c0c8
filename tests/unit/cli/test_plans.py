from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import pytest

from graftwork.cli import plans
from graftwork.core.errors import ConfigError
from graftwork.workflows import portfolio
from graftwork.workflows.portfolio import load_catalogue, read_plan_file


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    plans.add_arguments(parser)
    return plans.run(parser.parse_args(words))


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_every_plan_has_a_line_and_defaults_have_a_star(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    table = lines(capsys)
    for name, entry in load_catalogue().items():
        (line,) = [line for line in table if line[3:4].strip() and line[3:].split()[0] == name]
        assert line.startswith("*") == (bool(entry.default) and not entry.missing)


def test_what_is_not_installed_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portfolio, "has", lambda package: package != "catboost")
    call("--modality", "table")
    (line,) = [line for line in lines(capsys) if " catboost " in line[:24]]
    assert not line.startswith("*")
    wide = plans.plans_table(list(load_catalogue().values()), "table", 400)
    assert '(needs catboost: pip install "graftwork[boosters]")' in wide
    assert "needs xgboost" not in wide


def test_the_star_is_that_of_the_asked_kind(capsys: pytest.CaptureFixture[str]) -> None:
    call("--modality", "image")
    table = lines(capsys)
    assert any(line.startswith("*  lora-late ") for line in table)
    assert any(line.startswith("   ple ") for line in table), "ple enters races of tables alone"
    assert not any(" lightgbm " in line[:20] for line in table)


def test_what_is_shown_can_be_read_as_a_plan_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, entry in load_catalogue().items():
        call(name)
        (tmp_path / "mine.toml").write_text(capsys.readouterr().out, encoding="utf-8")
        (read,) = read_plan_file(tmp_path / "mine.toml")
        assert read.plan == entry.plan
        assert (read.asks, dict(read.needs), list(read.variants)) == (entry.asks, dict(entry.needs), list(entry.variants))


def test_an_unknown_plan_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no plan 'plee'\. Did you mean 'ple'\? See: graftwork plans"):
        call("plee")


def test_json_holds_where_plans_enter(capsys: pytest.CaptureFixture[str]) -> None:
    call("ple", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["default"] == ["table"]
    assert found["origin"] == "portfolio.toml"
    assert found["asks"] == []
    assert any("--dry-run" in words for words in found["costs"])
    call("mobiletl", "--json")
    assert json.loads(capsys.readouterr().out)["asks"] == ["backbone", "inverted residuals"]
    call("--json")
    assert {item["name"] for item in json.loads(capsys.readouterr().out)} == set(load_catalogue())


def row_of(name: str, width: int) -> str:
    table = plans.plans_table(list(load_catalogue().values()), None, width).splitlines()
    (line,) = [line for line in table if line[3:4].strip() and line[3:].split()[0] == name]
    return line


def test_the_table_says_what_plans_ask_for() -> None:
    asked = {"lora": "backbone", "group-mean": "groups", "mobiletl": "inverted residuals", "dann": "unlabelled rows"}
    header = plans.plans_table(list(load_catalogue().values()), None, 200).splitlines()[0]
    at = header.index("asks for")
    assert "group" in header.split()
    for name, what in asked.items():
        assert row_of(name, 200)[at:].startswith(f"{what}  "), name
        assert f"; asks for {what}" in text_of(name, 80), name
    assert not row_of("ple", 200)[at : at + 8].strip()
    assert "asks for" not in text_of("ple", 80)


def text_of(name: str, width: int) -> str:
    """Return the text of a plan in the last column of a narrow listing, from all of its lines."""
    entries = list(load_catalogue().values())
    lines = plans.plans_table(entries, None, width).splitlines()
    at, first = lines[0].index("what it is"), lines.index(row_of(name, width))
    more = itertools.takewhile(lambda line: not line[:at].strip(), lines[first + 1 :])
    return " ".join(line[at:].strip() for line in [lines[first], *more])


def test_a_narrow_listing_cuts_no_text() -> None:
    for width in (80, 129):
        table = plans.plans_table(list(load_catalogue().values()), None, width)
        assert max(map(len, table.splitlines())) <= width
        for name, entry in load_catalogue().items():
            assert entry.plan.title in text_of(name, width), name


def test_a_plan_is_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, dict[str, str]] = {}
    for name in ("group-mean", "merged", "separate", "linear", "mobiletl", "catboost", "ple"):
        call(name)
        comments = [line.removeprefix("# ") for line in lines(capsys) if line.startswith("# ")]
        told[name] = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in comments if "  " in line}
    assert told["group-mean"]["asks for"] == "groups of rows (--group)"
    assert told["group-mean"]["in a race"] == "by itself for all data, where what it asks for is there"
    assert told["merged"]["data"] == "image, text; at least 2 tasks"
    assert "2 stages one after another (train, merge)" in told["merged"]["costs"]
    assert told["merged"]["in a race"] == "by name: graftwork fit DATA --plans +merged"
    assert "a model for each task" in told["separate"]["costs"]
    assert "a model for each task" not in told["ple"]["costs"]
    assert told["ple"]["asks for"] == "nothing beside rows and labels"
    assert told["mobiletl"]["system"] == "graftwork show mobiletl"
    assert "other settings are tried where time is left" in told["catboost"]["costs"]


def test_a_system_that_is_a_plan_leads_there() -> None:
    from graftwork.cli import show

    parser = argparse.ArgumentParser()
    show.add_arguments(parser)
    with pytest.raises(ConfigError, match="there is a plan of that name. See: graftwork plans shared-trunk"):
        show.run(parser.parse_args(["shared-trunk"]))
