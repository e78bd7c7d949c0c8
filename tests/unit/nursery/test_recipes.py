"""Recipes of models that ship: found by looking, complete, and in step with what ships."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.shipped import shipped_backbones
from graftwork.nursery.recipe import find_recipe, recipe_names


def test_recipes_are_found_by_name() -> None:
    assert {"vit-mini", "conv-mini"} <= set(recipe_names())
    with pytest.raises(ConfigError, match="no recipe for a backbone 'vit-mimi'.*Did you mean 'vit-mini'"):
        find_recipe("vit-mimi")


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_complete(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.story
    assert recipe.licence
    assert all(source.credit and source.licence and source.what for source in recipe.sources)
    assert recipe.budget["steps"] == recipe.config(recipe.budget).max_steps
    torch.manual_seed(0)
    backbone = recipe.build()
    assert isinstance(backbone, Backbone)
    # Half precision: two bytes a value.
    assert 2 * sum(value.numel() for value in backbone.state_dict().values()) < 10_000_000


@pytest.mark.parametrize("name", sorted(shipped_backbones()))
def test_what_ships_is_what_the_recipe_would_make(name: str) -> None:
    recipe, description = find_recipe(name), shipped_backbones()[name].description
    assert description["budget"] == dict(recipe.budget)
    assert description["component"] == recipe.component.to_json()
    assert description["learned_from"] == [source.to_json() for source in recipe.sources]
    assert description["licence"] == recipe.licence
    assert description["held_out"] == dict(recipe.held_out)
    assert description["threads"] == 1
