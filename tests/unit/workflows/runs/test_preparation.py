from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.runs.preparation import check_weights, choose_backbone, choose_plans
from graftwork.workflows.runs.settings import FitSettings


@pytest.mark.parametrize("asked", ["osnet", "minilm,osnet_ain"])
def test_an_untrained_trunk_is_no_pretrained_backbone(asked: str) -> None:
    settings: Any = SimpleNamespace(backbone=asked)
    with pytest.raises(ConfigError, match=r"'osnet.*' has no weights yet.*backbone = \"graftwork.nn.backbones.osnet:OSNet\""):
        choose_backbone(settings, ["image", "text"])
    settings.backbone = "minilm"
    assert choose_backbone(settings, ["text"]) == ("minilm", "")


def test_a_weight_of_no_task_is_refused() -> None:
    suite: Any = SimpleNamespace(task_names=("sold", "price"))
    check_weights(SimpleNamespace(weights={"sold": 2.0}), suite)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"a weight for 'sol', which is no task\. Did you mean 'sold'\? Tasks: sold, price\."):
        check_weights(SimpleNamespace(weights={"sol": 2.0}), suite)  # type: ignore[arg-type]


def chosen(*names: str) -> list[str]:
    """Names of the plans of a run that was handed some beside those that are always in."""
    suite = Suite.of_arrays(
        name="toy",
        input_specs=table_input(1),
        tasks=[TaskSpec(name=name, kind="regression", size=1) for name in "ab"],
        inputs={"numeric": np.zeros((4, 1), np.float32), "categorical": np.zeros((4, 0), np.int64)},
        targets={name: np.arange(4.0)[:, None] for name in "ab"},
        splits={"train": np.arange(2), "val": np.arange(2, 3), "test": np.arange(3, 4)},
    )
    extra = [Plan(name=name, title="", role="joint", modalities=("table",)).to_json() for name in names]
    run: Any = SimpleNamespace(path="run", state={"extra_plans": extra})
    return [plan.name for plan in choose_plans(run, FitSettings.of_user("toy", plans=["none"]), suite)]


def test_plans_of_one_folder_are_refused() -> None:
    # The second one would find the results of the first and take them for its own.
    for first, second in (("rate 0.1", "rate_0.1"), ("a/b", "a:b"), ("Net", "net")):
        with pytest.raises(ConfigError, match=f"'{first}' and '{second}' would write to one folder.*Rename one"):
            chosen(first, second)
    assert chosen("rate 0.1", "rate 0.2", "net-1", "net_1")[-4:] == ["rate 0.1", "rate 0.2", "net-1", "net_1"]
    with pytest.raises(ConfigError, match="already a plan called 'separate'"):
        chosen("separate")
