"""The registry of task kinds: found by module, by alias, by registration; a new one edits no file."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from graftwork.core import kinds
from graftwork.core.errors import ConfigError
from graftwork.core.kinds import all_kinds, find_kind, kind_names, old_name, register_kind, resolve_kind, row_modules
from graftwork.core.records import TaskSpec
from graftwork.data.reading.ingest import open_suite
from graftwork.evaluation.metrics import default_metric, find_metric, score_task
from graftwork.interfaces.task_kind import column_kinds, task_kind
from graftwork.serving.answers import prediction_rows
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import task_loss

OLD = {
    "dense_binary": ("binary", 1),
    "dense_multiclass": ("multiclass", 4),
    "dense_regression": ("regression", 1),
    "dense_normals": ("normals", 3),
    "dense_offsets": ("offsets", 2),
}
THROW_AWAY = '''
"""Poisson counts."""
from graftwork.interfaces.metric import Metric
from graftwork.math.weighted_sums import divide, from_sums
from graftwork.tasks.kinds.regression import Regression
import numpy as np

__all__ = ["KIND"]


def _deviance(spec, target, prediction):
    known = ~np.isnan(target[:, 0])
    truth = np.where(known, target[:, 0], 0.0)
    each = 2 * (np.where(truth > 0, truth * np.log(np.maximum(truth, 1e-9) / prediction[:, 0]), 0.0) - truth + prediction[:, 0])
    return from_sums(np.stack([each * known, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


class Counts(Regression):
    name = "throw_away_counts"
    words = "how many"
    metrics = (Metric("poisson_deviance", "Poisson deviance", False, 0.0, float("inf"), _deviance),)

    def fit_spec(self, spec, target):
        return spec

    def loss(self, spec, output, target, *, robust=False):
        from torch.nn import functional as F
        from graftwork.tasks.tensors import masked_mean
        known = ~target.isnan()
        return masked_mean(F.poisson_nll_loss(output, target.nan_to_num(0.0), reduction="none"), known)

    complete_loss = loss

    def decode(self, spec, output):
        return output.exp()


KIND = Counts()
'''


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds that a test adds are gone after it."""
    all_kinds()
    monkeypatch.setattr(kinds, "_found", dict(kinds._found))
    monkeypatch.setattr(kinds, "_modules", set(kinds._modules))


@pytest.mark.parametrize("old", sorted(OLD))
def test_older_names_are_kinds_over_pixels(old: str) -> None:
    name, size = OLD[old]
    spec = TaskSpec(name="map", kind=old, size=size)
    assert (spec.kind, spec.positions, spec.is_dense) == (name, "pixels", True)
    assert spec == TaskSpec(name="map", kind=name, size=size, positions="pixels")
    assert old_name(spec.kind, spec.positions) == old
    assert resolve_kind(old, "pixels") == (name, "pixels")


@pytest.mark.parametrize("old", sorted(OLD))
def test_older_json_is_read_and_new_json_comes_back(old: str) -> None:
    stored = {
        "name": "map",
        "kind": old,
        "size": OLD[old][1],
        "classes": [],
        "columns": [],
        "center": [],
        "scale": [],
        "metric": "",
    }
    spec = TaskSpec.from_json(stored)
    assert TaskSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_tasks_of_rows_are_written_as_they_always_were() -> None:
    spec = TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes"))
    assert list(spec.to_json()) == ["name", "kind", "size", "classes", "columns", "center", "scale", "metric"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "multiclas"}, "Did you mean 'multiclass'"),
        ({"kind": "dense_binery"}, "Did you mean 'dense_binary'"),
        ({"kind": "binary", "positions": "pixel"}, "positions must be one of pixels"),
        ({"kind": "ordinal", "positions": "steps"}, "gives one answer a row"),
        ({"kind": "normals"}, "needs positions"),
        ({"kind": "dense_binary", "positions": "nodes"}, "kind must be one of"),
        ({"kind": "binary", "size": 0}, "size must be at least 1"),
        ({"kind": "regression", "size": 2**63 - 1}, "size must be at most 10,000,000"),
    ],
)
def test_what_is_no_kind_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="Task 'odd'") as caught:
        TaskSpec(**{"name": "odd", "size": 1, **fields})
    assert message in str(caught.value)


def test_every_module_is_a_kind_of_its_name() -> None:
    package = importlib.import_module(kinds.PACKAGE)
    modules = {path.stem for path in Path(package.__path__[0]).glob("*.py") if not path.stem.startswith("_")}
    assert {type(kind).__module__.rpartition(".")[2] for kind in all_kinds()} == modules
    assert set(row_modules()) == set(kind_names(over_positions=False))
    for kind in all_kinds():
        assert kind.name in kind_names(over_positions=kind.over_positions)
        assert find_kind(kind.name, "pixels" if kind.over_positions else "") is kind
    assert {"binary", "multiclass", "multilabel", "ordinal", "regression"} <= set(column_kinds())


def test_a_module_in_the_package_path_is_a_kind_without_any_edit(
    tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "throw_away_counts.py").write_text(THROW_AWAY)
    package = importlib.import_module(kinds.PACKAGE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{kinds.PACKAGE}.throw_away_counts", raising=False)
    spec = TaskSpec(name="clicks", kind="throw_away_counts", size=1)
    assert default_metric(spec) == "poisson_deviance"
    assert not find_metric("poisson_deviance").higher_is_better
    output, target = torch.zeros(3, 1), torch.tensor([[2.0], [0.0], [float("nan")]])
    assert task_loss(spec, output, target).item() == pytest.approx(1.0)  # exp(0) - target * 0
    assert decode_output(spec, output).tolist() == [[1.0], [1.0], [1.0]]
    score = score_task(spec, target.numpy(), np.ones((3, 1)))["poisson_deviance"]
    assert score == pytest.approx((2 * (2 * np.log(2) - 1) + 2) / 2)
    assert prediction_rows([spec], {"clicks": np.ones((1, 1))}) == [{"clicks": {"value": 1.0}}]
    frame = pd.DataFrame({"x": np.sin(np.arange(60) % 23), "clicks": np.arange(60) % 7 * 1.5})
    suite = open_suite(frame, targets="clicks", task_kinds={"clicks": "throw_away_counts"})
    assert suite.task("clicks").kind == "throw_away_counts"
    assert suite.task("clicks").center == ()


def test_a_kind_from_elsewhere_is_registered(registry: None) -> None:
    regression = type(find_kind("regression"))

    class Tons(regression):  # type: ignore[misc, valid-type]
        name = "throw_away_tons"
        aliases: ClassVar = {"throw_away_tonnes": ""}

        def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
            return output * 1000.0

    register_kind(Tons())
    spec = TaskSpec(name="load", kind="throw_away_tonnes", size=1)
    assert spec.kind == "throw_away_tons"
    assert decode_output(spec, torch.ones(1, 1)).item() == 1000.0

    class Taken(regression):  # type: ignore[misc, valid-type]
        name = "binary"

    with pytest.raises(ConfigError, match="already"):
        register_kind(Taken())

    class Shadow(regression):  # type: ignore[misc, valid-type]
        name = "throw_away_shadow"
        aliases: ClassVar = {"ordinal": ""}

    with pytest.raises(ConfigError, match="another kind has"):
        register_kind(Shadow())


def test_threads_that_ask_first_all_get_all_kinds() -> None:
    code = textwrap.dedent("""
        from concurrent.futures import ThreadPoolExecutor
        from graftwork.core.kinds import all_kinds
        with ThreadPoolExecutor(8) as pool:
            print(len({len(found) for found in pool.map(lambda _: all_kinds(), range(8))}))
    """)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_module_must_be_called_like_its_kind(tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "throw_away_other.py").write_text(THROW_AWAY)
    package = importlib.import_module(kinds.PACKAGE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(ImportError, match="must be called throw_away_counts"):
        resolve_kind("throw_away_counts")


def test_kinds_are_asked_without_torch() -> None:
    code = textwrap.dedent("""
        import sys
        import numpy as np
        from graftwork.core.kinds import all_kinds
        from graftwork.core.records import TaskSpec
        from graftwork.evaluation.metrics import score_task
        from graftwork.interfaces.task_kind import task_kind
        for kind in all_kinds():
            assert kind.words and kind.metrics
        spec = TaskSpec(name="late", kind="binary", size=1)
        print(score_task(spec, np.array([0, 1]), np.array([0.2, 0.7]), ["accuracy"]), task_kind(spec).answers(spec, np.array([0.7])))
        print("torch" in sys.modules)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["{'accuracy': 1.0} [{'value': '1', 'probability': 0.7}]", "False"]


def test_no_module_but_kinds_asks_which_kind_a_task_has() -> None:
    source = Path(importlib.import_module("graftwork").__path__[0])
    names = "|".join([*kind_names(), *OLD])
    wrong = []
    import re

    pattern = re.compile(rf"\bkind(s\[\w+\])? (==|!=|in|not in) [\(\[]?\"({names})\"")
    for path in source.rglob("*.py"):
        room = path.relative_to(source).as_posix()
        if not room.startswith(("tasks/kinds/", "recipes/")):
            wrong += [f"{room}:{number}" for number, line in enumerate(path.read_text().splitlines(), 1) if pattern.search(line)]
    allowed = ("methods/sharing/esmm.py", "workflows/estimator.py", "workflows/estimator_kinds.py", "nn/slimmable.py")
    # Methods about one kind of task: times until an event, classes that come one after the other, the next values of a series.
    allowed += ("domains/advertising/ad_survival.py", "methods/continual/class_step.py", "data/streams.py")
    allowed += ("domains/timeseries/forecasts.py",)
    # Which of such methods can learn on a suite.
    allowed += ("workflows/plan_asks.py",)
    # What teachers answer becomes labels, of the few kinds that can be taught.
    allowed += ("workflows/distill/pseudo_tasks.py", "workflows/distill/unlabelled.py")
    assert [place for place in wrong if not place.startswith(allowed)] == []
    assert task_kind(TaskSpec(name="a", kind="binary", size=1)).name == "binary"
