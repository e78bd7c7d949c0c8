"""Columns whose numbers are names: levels in place of a scale, from the command line to a stored encoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.cli import compare, fit
from graftwork.cli.run_flags import shared_settings
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.suite_yaml import validate_suite_yaml

ROWS = 400


@pytest.fixture
def log() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    user = generator.integers(0, 20, ROWS) * 17.0
    user[3] = np.nan
    click = generator.integers(0, 2, ROWS)
    return pd.DataFrame(
        {"user": user, "hour": generator.normal(size=ROWS), "click": click, "buy": generator.integers(0, 2, ROWS)}
    )


def test_numbers_become_levels_for_good(log: pd.DataFrame, tmp_path: Path) -> None:
    assert open_suite(log, targets="click,buy").only_input.sizes["cardinalities"] == []
    suite = open_suite(log, targets="click,buy", categories="user")
    assert suite.only_input.sizes == {"num_numeric": 1, "cardinalities": [21]}
    assert suite.inputs["categorical"][3, 0] == 0, "missing"
    log.to_csv(tmp_path / "log.csv", index=False)
    assert np.array_equal(
        open_suite(tmp_path / "log.csv", targets="click,buy", categories=["user"]).inputs["categorical"],
        suite.inputs["categorical"],
    )
    whole = log.assign(user=log["user"].fillna(34).astype(int)).drop(columns=["click", "buy"])
    encoded = encoder_from_state(suite.only_input.encoder).transform(whole)["categorical"][:, 0]
    known = np.arange(ROWS) != 3
    assert np.array_equal(encoded[known], suite.inputs["categorical"][known, 0]), "17 and 17.0 are one user"


def test_suite_files_share_the_levels_of_all_data_sets(log: pd.DataFrame, tmp_path: Path) -> None:
    log.iloc[:250].to_csv(tmp_path / "web.csv", index=False)
    log.iloc[250:].assign(user=lambda part: part["user"].astype(int)).to_csv(tmp_path / "shop.csv", index=False)
    (tmp_path / "suite.yaml").write_text(
        "datasets:\n- {source: web.csv, targets: [click], categories: user}\n- {source: shop.csv, targets: [buy]}\n"
    )
    assert validate_suite_yaml(tmp_path / "suite.yaml") == []
    assert open_suite(tmp_path / "suite.yaml").only_input.sizes == {"num_numeric": 1, "cardinalities": [21]}
    (tmp_path / "suite.yaml").write_text("datasets:\n- {source: web.csv, targets: [click], categories: usr}\n")
    (problem,) = validate_suite_yaml(tmp_path / "suite.yaml")
    assert "Did you mean 'user'" in problem.message
    log["body"] = "some words"
    log.to_csv(tmp_path / "web.csv", index=False)
    (tmp_path / "suite.yaml").write_text(
        "modality: text\ndatasets:\n- {source: web.csv, text: body, targets: [click], categories: user}\n"
    )
    with pytest.raises(ConfigError, match=r"data set 'web': the key 'categories' belongs to modality table"):
        open_suite(tmp_path / "suite.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"categories": "usr"}, "'usr' is not a column of the table. Did you mean 'user'"),
        ({"categories": "click"}, "'click' is named with --targets and with --categories"),
        ({"categories": "user", "group": "user"}, "Column 'user' is the group, which no model sees"),
        ({"categories": "user", "ignore": "user"}, "named with --categories and with --ignore"),
    ],
)
def test_what_cannot_be_a_category(log: pd.DataFrame, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_suite(log.assign(body="some words"), targets="click,buy", **settings)


def test_pictures_have_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder of pictures, describes its own data, so categories cannot be set"):
        open_suite(tmp_path, categories="user")


@pytest.mark.parametrize("verb", [fit, compare])
def test_the_verbs_take_them(verb: Any) -> None:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    args = parser.parse_args(["log.csv", "--targets", "click,buy", "--categories", "user,item"])
    assert shared_settings(args)["categories"] == "user,item"
