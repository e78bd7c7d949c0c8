from __future__ import annotations

from typing import Any

import pytest

from graftwork.core.errors import ConfigError
from graftwork.training.config import TrainConfig


def test_later_layers_are_stronger() -> None:
    config = TrainConfig.from_settings({"batch_size": 8, "ema_decay": 0.9}, {"batch_size": 16}, {"max_steps": 7})
    assert (config.batch_size, config.ema_decay, config.max_steps) == (16, 0.9, 7)


def test_a_misspelt_key_gets_its_nearest_match() -> None:
    with pytest.raises(ConfigError, match="unknown training setting 'lerning_rate'. Did you mean 'learning_rate'"):
        TrainConfig.from_settings({"lerning_rate": 0.1})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("max_steps", 0, "max_steps must be an integer of at least 1; got 0"),
        ("batch_size", 2.5, "batch_size must be an integer of at least 1; got 2.5"),
        ("learning_rate", -1.0, "learning_rate must be a number above 0; got -1.0"),
        ("learning_rate", float("inf"), "learning_rate must be a number above 0; got inf"),
        ("backbone_lr_scale", 0, "backbone_lr_scale must be a number above 0; got 0"),
        ("weight_decay", -0.1, "weight_decay must be a number of at least 0"),
        ("optimizer", "lion", "optimizer must be one of adamw, adam, sgd; got 'lion'"),
        ("momentum", 1.0, r"momentum must be a number in \[0, 1\)"),
        ("schedule", "step", "schedule must be one of cosine, constant, linear, wsd; got 'step'"),
        ("warmup_steps", -1, "warmup_steps must be an integer of at least 0"),
        ("grad_clip", "big", "grad_clip must be a number of at least 0; got 'big'"),
        ("ema_decay", 1.0, r"ema_decay must be a number in \[0, 1\); got 1.0"),
        (
            "mixing",
            "often",
            "mixing must be one of proportional, uniform, balanced, round-robin, or a temperature of at least 1; got 'often'",
        ),
        ("augment", "cutmix", "augment must be one of none, flip, shift, flip\\+shift; got 'cutmix'"),
        ("robust_regression", 1, "robust_regression must be true or false; got 1"),
        ("evaluations", -1, "evaluations must be an integer of at least 0"),
    ],
)
def test_values_out_of_range_are_named(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{setting: value})


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(batch_size=0, learning_rate=0.0)
    assert len(caught.value.problems) == 2
