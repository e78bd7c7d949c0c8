"""Names of backbones are checked before a run has a folder, and kinds before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError
from graftwork.workflows.runs.preparation import check_backbone_names


@pytest.mark.parametrize(
    "names", [None, "", "all", "none", "scratch", "minilm", "minilm,efficientnet_lite0@96", "hf:some/folder"]
)
def test_names_that_may_be_given(names: str | None) -> None:
    check_backbone_names(names)


@pytest.mark.parametrize("verb", ["fit", "compare", "tune"])
def test_a_misspelt_name_leaves_no_folder(verb: str, tmp_path: Path) -> None:
    settings = {"backbone": "minilmm", "targets": "a", "out": tmp_path / "run"}
    with pytest.raises(ConfigError, match=r"no backbone 'minilmm'.*Did you mean 'minilm'"):
        getattr(gw, verb)(source="no-such-table.csv", **settings)
    assert not (tmp_path / "run").exists()


def test_tune_refuses_a_backbone_of_another_kind_before_it_measures(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{number % 7}.5,{number}\n" for number in range(60)), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"'minilm' reads text data, and the data is table.*no pretrained backbone for such data"
    ):
        gw.tune("minilm", tmp_path / "rows.csv", targets="b", out=tmp_path / "run", workers=0)
    assert not list((tmp_path / "run").glob("jobs/*"))
