from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.errors import ConfigError
from graftwork.workflows.runs.preparation import check_weights, choose_backbone


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
