"""Ranking all rows: what is large stays in files, numbers do not change, and memory does not grow with the rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_rank import own_run, pictures
from torch import Tensor

import graftwork as gw
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation import score_stability
from graftwork.evaluation.score_stability import HalfSamples
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.backbones.source_heads import SourceHead
from graftwork.workflows.rank import judging, row_view, seen_rows
from graftwork.workflows.rank.judging import JudgedSource, judge_source
from graftwork.workflows.rank.loading import LoadedSource
from graftwork.workflows.rank.row_view import RowView, picked_rows
from graftwork.workflows.rank.rows import rank_rows
from graftwork.workflows.rank.score_names import SCORES, NamedScore
from graftwork.workflows.rank.sources import RankSource

STREAMED = ["logme", "hscore", "leep", "nce", "transrate", "gbc", "ped", "probe"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


class Spread(Backbone):
    """Forty features of four numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 40)
        self.feature_shape = FeatureShape("vector", 40)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.layer(inputs["numeric"]).tanh()


def rows_of_numbers(count: int) -> Suite:
    random = np.random.default_rng(0)
    labels = random.integers(6, size=count)
    numbers = random.normal(size=(6, 4))[labels] + random.normal(size=(count, 4))
    return Suite.of_arrays(
        name="numbers",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[TaskSpec(name="level", kind="multiclass", size=6, classes=tuple("abcdef"))],
        inputs={"numeric": numbers.astype(np.float32), "categorical": np.zeros((count, 0), dtype=np.int64)},
        targets={"level": labels},
        splits={"train": np.arange(count)},
    )


def judged(count: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> JudgedSource:
    random = np.random.default_rng(1)
    head = SourceHead(random.normal(size=(30, 40)).astype(np.float32), np.zeros(30, dtype=np.float32))
    suite = rows_of_numbers(count)
    rows = rank_rows(suite, None)
    monkeypatch.setattr(judging, "load_source", lambda *_, **__: LoadedSource(Spread().eval(), rows.suite.inputs, head))
    samples = HalfSamples(count, draws=10)
    return judge_source(RankSource("numbers", "catalog", "table", ""), rows, STREAMED, samples, cache=cache, seed=0)


def test_what_lies_in_files_scores_as_what_lies_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_stability, "_NARROW", 16)
    wanted = judged(1500, tmp_path / "one", monkeypatch).scores["level"]
    monkeypatch.setattr(seen_rows, "IN_MEMORY", 0)
    monkeypatch.setattr(row_view, "COPIED", 0)
    found = judged(1500, tmp_path / "two", monkeypatch).scores["level"]
    assert set(found) == set(STREAMED)
    for name, score in found.items():
        assert score.value == pytest.approx(wanted[name].value, rel=1e-6), name
        # A row on the border of two classes may fall to either side.
        assert score.replicates == pytest.approx(wanted[name].replicates, rel=1e-4, abs=0.02 if name == "probe" else 1e-4), name
    assert len(list((tmp_path / "two").glob("features-*"))) == 3, "features, their narrow form, and answers"


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_stability, "_NARROW", 16)
    monkeypatch.setattr(seen_rows, "IN_MEMORY", 0)
    monkeypatch.setattr(row_view, "COPIED", 0)
    judged(500, tmp_path / "warm", monkeypatch)  # what is imported and compiled once
    peaks = []
    for count in (5_000, 20_000):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        judged(count, tmp_path / str(count), monkeypatch)
        # The rows themselves and a few numbers a row are in memory here; forty features and thirty answers a row are not.
        peaks.append(tracemalloc.get_traced_memory()[1] - before - count * 70)
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0], "features of all rows have 3.2 MB"


def test_rows_are_picked_where_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=np.uint8, shape=(50, 3, 2))
    array[:] = np.arange(300).reshape(50, 3, 2) % 251
    chosen: NDArray[np.int64] = np.array([4, 1, 30, 7])
    assert isinstance(picked_rows(array, chosen), np.ndarray)
    monkeypatch.setattr(row_view, "COPIED", 5)
    view = picked_rows(array, chosen)
    assert isinstance(view, RowView)
    assert (len(view), view.shape, view.dtype, view.ndim, view.nbytes) == (4, (4, 3, 2), np.uint8, 3, 24)
    np.testing.assert_array_equal(view[1:3], array[[1, 30]])
    np.testing.assert_array_equal(view[np.array([3, 0])], array[[7, 4]])
    np.testing.assert_array_equal(np.asarray(view), array[chosen])


def test_all_rows_are_judged_unless_fewer_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_view, "COPIED", 0)
    own_run(tmp_path / "mine", pictures())
    found = gw.rank(pictures(), sources="mine", targets="level", draws=10, scores="logme", out=tmp_path / "out")
    assert found.result["suite"]["judged_rows"] == 90
    assert found.result["notes"] == []
    monkeypatch.setitem(SCORES, "knn", few_neighbours())
    found = gw.rank(pictures(), sources="mine", targets="level", draws=10, scores="logme,knn", out=tmp_path / "out")
    assert any("Neighbours: of 40 rows, drawn from all 90" in note for note in found.result["notes"])


def few_neighbours() -> NamedScore:
    from dataclasses import replace
    from functools import partial

    from graftwork.methods.selection.nearest import NearestNeighbours

    return replace(SCORES["knn"], make=partial(NearestNeighbours, max_rows=40), most_rows=40)
