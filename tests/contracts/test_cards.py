"""What a card promises about code is true: parts exist, implement the seams, take the settings, and plans can be read."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest

from graftwork.claims.experiment import Recipe
from graftwork.core.cards import Card, load_cards
from graftwork.core.settings import settings_of
from graftwork.workflows.plan_check import plan_problems
from graftwork.workflows.portfolio import load_catalogue
from graftwork.workflows.seam_source import seams

BUILT = [card for card in load_cards().values() if card.is_built]
EXTRAS = set(
    tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
)


def part_of(path: str) -> Any:
    """Return what a card names; not every part of a system is a component of a plan (layers, suites)."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def test_some_systems_are_built() -> None:
    assert BUILT


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_components_exist_and_are_documented(card: Card) -> None:
    for path in card.components:
        assert inspect.getdoc(part_of(path)), path


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_every_named_seam_is_implemented(card: Card) -> None:
    parts = [part_of(path) for path in card.components]
    for seam in card.seams:
        base = part_of(f"graftwork.interfaces.{seams()[seam]}:{seam}")
        assert any(inspect.isclass(part) and issubclass(part, base) for part in parts), f"no component is a {seam}"


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_implementations_leave_nothing_abstract(card: Card) -> None:
    for path in card.components:
        part = part_of(path)
        assert not inspect.isabstract(part), f"{path} still has abstract methods: {sorted(part.__abstractmethods__)}"


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_contract_settings_are_arguments_of_their_class(card: Card) -> None:
    parts = {path.partition(":")[2]: part_of(path) for path in card.components}
    for name, settings in card.contract.items():
        assert name in parts, f"[contract.{name}] names no component of the card"
        arguments = inspect.signature(parts[name]).parameters
        takes_any = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values())
        # A keyword annotated with a dataclass stands for the fields of that class.
        allowed = {*arguments} if takes_any or set(settings) <= set(arguments) else {*settings_of(parts[name])}
        assert takes_any or set(settings) <= allowed, f"{name} takes {sorted(allowed)}"


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_plans_of_a_card_can_run(card: Card) -> None:
    entries = [entry for entry in load_catalogue().values() if entry.origin == f"card {card.slug}"]
    assert len(entries) == len(card.plans)
    for entry in entries:
        assert entry.plan.system == card.slug
        assert plan_problems(entry.plan) == []


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_recipe_is_a_recipe_of_the_system(card: Card) -> None:
    module = importlib.import_module(card.recipe)
    assert isinstance(module.RECIPE, Recipe)
    assert module.RECIPE.slug == card.slug
    assert module.__doc__
    assert len(module.__doc__.split()) > 20, "the docstring gives the paper's number, the setting, and the minutes"


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_extras_exist(card: Card) -> None:
    assert set(card.extras) <= EXTRAS
