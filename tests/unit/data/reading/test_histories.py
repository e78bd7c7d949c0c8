"""Columns of behaviour histories in users' own tables, from cells to codes, models, predictions and requests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from graftwork.cli import compare, fit
from graftwork.cli.run_flags import shared_settings
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.columns import CategoricalColumn
from graftwork.data.encoders.history import HistoryColumn, history_codes, history_ids
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.suite_yaml import validate_suite_yaml
from graftwork.data.store import load_suite, save_suite
from graftwork.methods.sharing.dtrn import DTRN
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.nn.fields import FieldLayout
from graftwork.serving.limits import ServeLimits
from graftwork.serving.predict import Predictor
from graftwork.serving.problems import Problem
from graftwork.serving.reading import TableReader
from graftwork.workflows.compare.settings import CompareSettings
from graftwork.workflows.fit import fit as run_fit
from graftwork.workflows.runs.begin import repeat_command
from graftwork.workflows.runs.settings import FitSettings

ROWS = 300
PAST = {"clicked": "item", "bought": "item"}


def column(*cells: Any) -> pd.Series:
    return pd.Series(list(cells), dtype=object)


def encoder() -> TableEncoder:
    """Levels 11, 12, 13, 14 with the codes 1 to 4: they are in 4, 3, 1 and 1 rows; 14 is never shown."""
    frame = pd.DataFrame(
        {
            "bought": column(None, None, "11", [14]),
            "item": pd.Series([11, 12, 11, 13], dtype="category"),
            "clicked": column("", 11.0, "12|11", "13, 12;11 14"),
            "hour": [1.0, 2.0, 3.0, 4.0],
        }
    )
    return TableEncoder.fit(frame, ["item", "hour"], histories=PAST)


def rows_of(**cells: Any) -> pd.DataFrame:
    count = len(next(iter(cells.values())))
    return pd.DataFrame(
        {"item": [13] * count, "hour": [0.0] * count, "clicked": [None] * count, "bought": [None] * count}
        | {name: column(*values) for name, values in cells.items()}
    )


@pytest.fixture
def log() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    past = [[int(item) * 7 for item in generator.integers(0, 30, generator.integers(0, 25))] for _ in range(2 * ROWS)]
    return pd.DataFrame(
        {
            "clicked": pd.Series(past[:ROWS]),
            "item": generator.integers(0, 30, ROWS) * 7,
            "hour": generator.normal(size=ROWS),
            "bought": pd.Series(past[ROWS:]),
            "click": generator.integers(0, 2, ROWS),
            "buy": generator.integers(0, 2, ROWS),
        }
    )


def as_texts(frame: pd.DataFrame, separator: str = " ") -> pd.DataFrame:
    return frame.assign(**{name: [separator.join(map(str, cell)) for cell in frame[name]] for name in PAST})


def test_values_by_hand() -> None:
    found = encoder()
    assert [type(part).__name__ for part in found.columns] == [
        "CategoricalColumn", "NumericColumn", "HistoryColumn", "HistoryColumn",
    ]  # fmt: skip
    assert isinstance(found.columns[0], CategoricalColumn)
    assert found.columns[0].levels == ("11", "12", "13", "14"), "a row counts once, wherever it holds the item"
    codes = found.transform(rows_of(clicked=["13, 12;11 14", "", "77 11 77", "12"], bought=[None, [14.0, "12"], 17, "11"]))[
        "categorical"
    ]
    assert codes.shape == (4, 41)
    assert codes.dtype == np.int64
    assert codes[:, 0].tolist() == [3, 3, 3, 3]
    assert codes[:, 1:5].tolist() == [[4, 1, 2, 3], [0] * 4, [0, 1, 0, 0], [2, 0, 0, 0]], (
        "newest first; unknown ids keep their place"
    )
    assert codes[:, 21:24].tolist() == [[0] * 3, [2, 4, 0], [0] * 3, [1, 0, 0]]
    assert not codes[:, 5:21].any()


def test_only_the_last_ids_count() -> None:
    cells = column(" ".join(["12"] * 30 + ["11"] * 19), [11] * 5 + [None, float("nan")] + [12] * 20)
    codes = encoder().transform(rows_of(clicked=cells))["categorical"][:, 1:21]
    assert codes.tolist() == [[1] * 19 + [2], [2] * 20]


def test_layout_is_what_networks_read() -> None:
    sizes = encoder().sizes()
    assert sizes == {
        "num_numeric": 1,
        "cardinalities": [5] * 41,
        "vocabularies": [0] * 41,
        "sequences": {"clicked": [1, 21], "bought": [21, 41]},
        "query": 0,
    }
    layout = FieldLayout.from_sizes(sizes)
    assert (layout.query, layout.plain, layout.num_fields) == (0, (0,), 2)
    plain = TableEncoder.fit(pd.DataFrame({"city": ["a", "b"]}), ["city"])
    assert set(plain.sizes()) == {"num_numeric", "cardinalities"}, "tables without histories stay as they were"


def test_states_come_back() -> None:
    state = json.loads(json.dumps(encoder().state()))
    assert state["columns"][2] == {"type": "history", "name": "clicked", "item": "item", "length": 20}, "levels are kept once"
    restored = encoder_from_state(state)
    assert isinstance(restored, TableEncoder)
    assert restored.columns == encoder().columns
    rows = rows_of(clicked=["11 12", None])
    assert np.array_equal(restored.transform(rows)["categorical"], encoder().transform(rows)["categorical"])
    with pytest.raises(DataError, match=r"lacks 1 of the 4 columns .*'clicked'.*cells may be empty"):
        restored.transform(rows.drop(columns="clicked"))


def test_old_states_still_load() -> None:
    state = {
        "kind": "table",
        "version": 1,
        "columns": [
            {"type": "categorical", "name": "city", "levels": ["a"]},
            {"type": "numeric", "name": "x", "mean": 0.0, "std": 1.0, "has_missing": False, "knots": []},
        ],
    }
    restored = encoder_from_state(state)
    assert [column | old for column, old in zip(restored.state()["columns"], state["columns"])] == restored.state()["columns"]
    assert restored.sizes() == {"num_numeric": 1, "cardinalities": [2]}


@pytest.mark.parametrize(
    ("cell", "ids"),
    [
        ("17 23,4;5|6\t7 | 8", ("17", "23", "4", "5", "6", "7", "8")),
        ("[17, 23]", ("17", "23")),
        ("['a', \"b\"]", ("a", "b")),
        ("red-shoe", ("red-shoe",)),
        (["red shoe", 17.0, 17, None], ("red shoe", "17", "17")),
        (np.array([3.0, np.nan]), ("3",)),
        (("a", "b"), ("a", "b")),
        (17.0, ("17",)),
        (" , ", ()),
        ([], ()),
        (None, ()),
    ],
)
def test_cells(cell: Any, ids: tuple[str, ...]) -> None:
    assert history_ids(cell) == ids
    codes, levels = history_codes("clicked", column(cell, cell), 8)
    assert [tuple(levels[number] for number in row if number >= 0) for row in codes] == [ids[::-1]] * 2


@pytest.mark.parametrize("cell", [{"id": 1}, [[1, 2]], [{"id": 1}], b"17"])
def test_what_is_no_history(cell: Any) -> None:
    with pytest.raises(
        DataError, match=r"The history column 'clicked' holds .*Give ids separated by spaces.* leave the cell empty"
    ):
        HistoryColumn("clicked", CategoricalColumn("item", ("1",))).encode(column("1 2", cell))


def test_texts_lists_and_files_are_the_same(log: pd.DataFrame, tmp_path: Path) -> None:
    suite = open_suite(log, targets="click,buy", histories=PAST)
    assert suite.only_input.sizes["sequences"] == {"clicked": [1, 21], "bought": [21, 41]}
    assert suite.only_input.sizes["cardinalities"] == [31] * 41
    as_texts(log, "|").to_csv(tmp_path / "text.csv", index=False)
    log.to_csv(tmp_path / "written-lists.csv", index=False)
    log.to_json(tmp_path / "log.jsonl", orient="records", lines=True)
    log.to_parquet(tmp_path / "log.parquet")
    for name in ("text.csv", "written-lists.csv", "log.jsonl", "log.parquet"):
        found = open_suite(tmp_path / name, targets="click,buy", histories=PAST)
        assert np.array_equal(found.inputs["categorical"], suite.inputs["categorical"]), name
        save_suite(found, tmp_path / "stored")
        assert load_suite(tmp_path / "stored").only_input.sizes == suite.only_input.sizes
    row = next(index for index, cell in enumerate(log["clicked"]) if len(cell) > 1)
    newest, before = log["clicked"][row][:-3:-1]
    levels = suite.only_input.encoder["columns"][0]["levels"]
    assert [levels[code - 1] for code in suite.inputs["categorical"][row, 1:3]] == [str(newest), str(before)]


def test_columns_are_kept_and_described(log: pd.DataFrame) -> None:
    log["clicked"] = [[f"{name} of quite a long name {row}" for name in "ab"] for row in range(ROWS)]
    log["item"] = range(ROWS)
    log["answer"] = as_texts(log)["bought"]
    suite = open_suite(log.drop(columns="answer"), targets="click,buy", histories=PAST)
    assert [part["name"] for part in suite.only_input.encoder["columns"]] == ["item", "hour", "clicked", "bought"]
    notes = "\n".join(suite.notes)
    assert "Dropped" not in notes, "neither a history nor its item is dropped as text or identifier"
    assert "leak" not in notes
    assert "Column 'clicked' is a history of 'item': 300 of 300 rows have one" in notes
    assert "0% of the 600 different ids occur in 'item'. Check that both columns name items in the same way." in notes
    assert "100% of the 30 different ids occur in 'item'." in notes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"histories": {"cliked": "item"}}, "--history: 'cliked' is not a column of the table. Did you mean 'clicked'"),
        ({"histories": {"clicked": "itm"}}, "'itm' is not a column of the table. Did you mean 'item'"),
        ({"histories": {"clicked": "item", "bought": "shop"}}, "belong to one item column.*got 'item', 'shop'"),
        ({"histories": {"clicked": "clicked"}}, "'clicked' is named both as a history and as the item"),
        ({"histories": {"click": "item"}}, "'click' is a target, so it cannot be a history"),
        ({"histories": {"clicked": "buy"}}, "'buy' is a target, so it cannot be the item"),
        ({"histories": PAST, "group": "clicked"}, "'clicked' is the group, so it cannot be a history"),
        ({"histories": PAST, "group": "item"}, "'item' is the group, so it cannot be the item"),
        ({"histories": PAST, "categories": "item,bought"}, "'bought' is named both as a history and as a category"),
        ({"histories": PAST, "ignore": "item"}, "'item' is ignored, so it cannot be the item"),
        ({"histories": {"clicked": "bought"}}, "'bought' is to be read as a category, but some of its cells hold lists"),
        ({"histories": {"nothing": "item"}}, "The history column 'nothing' is empty in all rows"),
        ({"histories": {"clicked": "copy"}}, "item column 'copy' is identical to a target"),
    ],
)
def test_wrong_uses(log: pd.DataFrame, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_suite(log.assign(shop="a", nothing=None, copy=log["click"]), targets="click,buy", **settings)


def test_what_describes_itself_takes_none(log: pd.DataFrame, tmp_path: Path) -> None:
    for source in (tmp_path, open_suite(log, targets="click,buy", histories=PAST)):
        with pytest.raises(DataError, match="describes its own data, so histories cannot be set"):
            open_suite(source, histories=PAST)


def test_suite_files(log: pd.DataFrame, tmp_path: Path) -> None:
    as_texts(log.iloc[:200]).to_csv(tmp_path / "web.csv", index=False)
    log.iloc[200:].drop(columns="bought").to_json(tmp_path / "shop.jsonl", orient="records", lines=True)
    file = tmp_path / "suite.yaml"
    file.write_text(
        "datasets:\n- {source: web.csv, targets: [click], ignore: buy, histories: {clicked: item, bought: item}}\n"
        "- {source: shop.jsonl, targets: [buy], ignore: click, histories: {clicked: item}}\n"
    )
    assert validate_suite_yaml(file) == []
    suite = open_suite(file)
    assert suite.only_input.sizes["sequences"] == {"clicked": [1, 21], "bought": [21, 41]}
    assert suite.inputs["categorical"][200:, 1:21].any()
    assert not suite.inputs["categorical"][200:, 21:].any(), "a data set without the column has no history"


@pytest.mark.parametrize(
    ("value", "line", "message"),
    [
        ("clicked", 4, "must be a mapping from history columns to the item column.*got 'clicked'"),
        ("\n    cliked: item", 5, "no column 'cliked'. Did you mean 'clicked'"),
        ("\n    clicked: item\n    bought: itm", 6, "no column 'itm'. Did you mean 'item'"),
        ("\n    clicked: item\n    bought: hour", 6, "all histories belong to one item column; got 'hour' after 'item'"),
        ("\n    clicked: [item]", 5, r"must name the item column; got \['item'\]"),
    ],
)
def test_faults_of_suite_files(log: pd.DataFrame, tmp_path: Path, value: str, line: int, message: str) -> None:
    as_texts(log).to_csv(tmp_path / "web.csv", index=False)
    file = tmp_path / "suite.yaml"
    file.write_text(f"datasets:\n- source: web.csv\n  targets: [click]\n  histories: {value}\n")
    problem = validate_suite_yaml(file)[0]
    assert problem.line == line
    with pytest.raises(ConfigError, match=message):
        open_suite(file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("targets: [click], histories: {click: item}", "suite.yaml, histories: column 'click' is a target"),
        ("targets: [click], features: [hour, clicked], histories: {clicked: item}", "'item' is not a column of the features"),
        ("targets: [click], features: [hour, shop], text: shop, histories: {clicked: item}", "'item' is not a column"),
    ],
)
def test_wrong_uses_in_suite_files(log: pd.DataFrame, tmp_path: Path, settings: str, message: str) -> None:
    as_texts(log.assign(shop="a b")).to_csv(tmp_path / "web.csv", index=False)
    (tmp_path / "suite.yaml").write_text(f"datasets:\n- {{source: web.csv, {settings}}}\n")
    with pytest.raises((DataError, ConfigError), match=message):
        open_suite(tmp_path / "suite.yaml")


@pytest.mark.parametrize("verb", [fit, compare])
def test_flags_and_settings(verb: Any) -> None:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    words = ["log.csv", "--targets", "click,buy", "--history", "clicked=item", "--history", "bought=item"]
    assert shared_settings(parser.parse_args(words))["histories"] == PAST
    with pytest.raises(ConfigError, match="--history gives 'clicked' twice"):
        shared_settings(parser.parse_args([*words, "--history", "clicked=shop"]))
    with pytest.raises(ConfigError, match="--history takes key=value; got 'clicked'"):
        shared_settings(parser.parse_args(["--history", "clicked"]))


@pytest.mark.parametrize("kind", [FitSettings, CompareSettings])
def test_the_command_repeats_them(kind: type[FitSettings]) -> None:
    settings = kind.of_user("log.csv", targets="click,buy", histories=PAST, steps=8)
    assert kind.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    words = repeat_command(settings).split()
    assert words[:5] == ["graftwork", "fit", "log.csv", "--targets", "click,buy"]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--history"] == ["clicked=item", "bought=item"]
    stored = settings.to_json()
    del stored["histories"]
    assert kind.from_json(stored).data.histories == {}, "runs from before go on"


def test_models_read_them(log: pd.DataFrame) -> None:
    torch.manual_seed(0)
    suite = open_suite(log, targets="click,buy", histories=PAST)
    assert isinstance(scratch_backbone(suite.input_specs), BehaviourBackbone)
    model = DTRN(suite.tasks, inputs=suite.input_specs, width=8, num_experts=2, expert_width=8).eval()
    found = encoder_from_state(suite.only_input.encoder)
    rows = log.head(3).assign(clicked=[[7, 14], [7, 14], [999]], bought=[[]] * 3, item=7, hour=0.0)

    def outputs(frame: pd.DataFrame) -> torch.Tensor:
        inputs = {name: torch.from_numpy(array) for name, array in found.transform(frame).items()}
        with torch.no_grad():
            return torch.cat([value.flatten(1) for value in model(inputs).values()], dim=1)

    before, after = outputs(rows), outputs(rows.assign(clicked=[[7, 14], [7, 21], []]))
    assert torch.equal(before[0], before[1])
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1]), "another history, another prediction"
    assert torch.equal(before[2], after[2]), "an unknown id tells no more than no history"


@pytest.mark.slow
def test_a_run_from_the_table_to_predictions(log: pd.DataFrame, tmp_path: Path) -> None:
    as_texts(log).to_csv(tmp_path / "log.csv", index=False)
    run = run_fit(
        tmp_path / "log.csv",
        targets="click,buy",
        histories=PAST,
        plans="dtrn",
        steps=8,
        seeds=1,
        workers=0,
        backbone="none",
        out=tmp_path / "run",
    )
    assert "--history clicked=item --history bought=item" in json.loads((tmp_path / "run" / "run.json").read_text())["command"]
    predictor = Predictor(run.folder, threads=1)
    rows = log.head(40)
    as_texts(rows, ", ").to_csv(tmp_path / "rows.csv", index=False)
    rows.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    from_texts = predictor.predict(tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(predictor.predict(tmp_path / "rows.jsonl"), from_texts)
    assert set(from_texts) == {"click", "click_probability", "buy", "buy_probability"}
    others = predictor.predict(rows.assign(clicked=[[7, 14]] * len(rows)))
    assert not np.allclose(others["click_probability"], from_texts["click_probability"]), "the model reads the history"


def test_requests_hold_lists_or_texts() -> None:
    reader = TableReader(encoder(), ServeLimits(max_rows=8))
    problems: list[Problem] = []
    cells = ["11 12", [11, "12"], 11, None, "", [12.0, None]]
    rows = reader.read({"rows": [{"item": 11, "hour": 1, "clicked": cell, "bought": [14]} for cell in cells]}, problems)
    assert problems == []
    codes = reader.encode(rows)["categorical"]
    assert codes[:, 1:4].tolist() == [[2, 1, 0], [2, 1, 0], [1, 0, 0], [0] * 3, [0] * 3, [2, 0, 0]]
    assert codes[:, 21].tolist() == [4] * 6
    assert reader.encode(reader.blank())["categorical"].tolist() == [[0] * 41]
    for wrong in ({"id": 1}, [[1]], [1] * 10_001):
        reader.read({"rows": [{"item": 11, "hour": 1, "clicked": wrong, "bought": None}]}, problems)
    assert [problem.field for problem in problems] == ["rows[0].clicked"] * 3
    assert "ids separated by spaces, commas, semicolons or '|', or a list" in problems[0].allowed


def test_descriptions_of_requests() -> None:
    reader = TableReader(encoder(), ServeLimits(max_rows=8))
    schema = reader.item_schemas()["rows"]["properties"]["clicked"]
    assert schema["type"] == ["array", "string", "number", "boolean", "null"]
    assert schema["items"]["type"] == ["string", "number", "boolean", "null"]
    assert "most recent last" in schema["description"]
    assert reader.inputs()[2] == {"name": "clicked", "type": "history", "item": "item", "length": 20}
