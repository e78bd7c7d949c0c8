"""Class weights that users ask for: any source takes them, and what fits nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from graftwork.cli import fit as fit_verb
from graftwork.cli.common import VerbParser
from graftwork.cli.run_flags import shared_settings
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.suite_yaml import validate_suite_yaml
from graftwork.tasks.class_weights import ASKED, weights_of
from graftwork.workflows.runs.begin import repeat_command
from graftwork.workflows.runs.settings import FitSettings


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": [float(n % 7) for n in range(60)],
            "sold": ["yes" if n % 5 == 0 else "no" for n in range(60)],
            "price": [n * 1.5 for n in range(60)],
        }
    )


def test_a_table_and_a_ready_suite_take_class_weights() -> None:
    suite = open_suite(frame(), targets="sold,price", class_weights={"sold": "balanced"})
    sold = suite.task("sold")
    assert sold.details[ASKED] == "balanced"
    no, yes = weights_of(sold)
    train = suite.targets["sold"][suite.splits["train"]]
    assert no * (train == 0).sum() == pytest.approx(yes * (train == 1).sum())
    assert suite.task("price").details == {}
    plain = open_suite(frame(), targets="sold,price")
    assert open_suite(plain, class_weights={"sold": "balanced"}).tasks == suite.tasks


def test_a_suite_file_takes_them_for_each_target(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    text = (
        "name: s\ndatasets:\n  - name: t\n    source: t.csv\n    targets:\n      sold: {class_weight: balanced}\n      price:\n"
    )
    (tmp_path / "suite.yaml").write_text(text)
    suite = open_suite(tmp_path / "suite.yaml")
    assert weights_of(suite.task("sold")) is not None
    assert weights_of(suite.task("price")) is None
    (tmp_path / "suite.yaml").write_text(text.replace("balanced", "heavy"))
    (problem,) = validate_suite_yaml(tmp_path / "suite.yaml")
    assert "class_weight: must be balanced; got 'heavy'" in str(problem)


def test_what_fits_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"asked for 'solt', which is no task\. Did you mean 'sold'"):
        open_suite(frame(), targets="sold,price", class_weights={"solt": "balanced"})
    with pytest.raises(ConfigError, match="has no classes to weigh"):
        open_suite(frame(), targets="sold,price", class_weights={"price": "balanced"})
    with pytest.raises(ConfigError, match="can be balanced"):
        open_suite(frame(), targets="sold,price", class_weights={"sold": "heavy"})


def test_the_flag_and_the_command_that_repeats_a_run() -> None:
    parser = VerbParser()
    fit_verb.add_arguments(parser)
    args = parser.parse_args(["t.csv", "--targets", "sold", "--class-weight", "sold=balanced"])
    assert shared_settings(args)["class_weights"] == {"sold": "balanced"}
    settings = FitSettings.of_user("t.csv", targets="sold", class_weights={"sold": "balanced"})
    assert "--class-weight sold=balanced" in repeat_command(settings)
    assert FitSettings.from_json(settings.to_json()) == settings
