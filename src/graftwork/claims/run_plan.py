"""What a run of a recipe needs to know before it starts: card, recipe, seeds, looks, and where the evidence goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.claims.experiment import Recipe
from graftwork.claims.looks import check_looks
from graftwork.claims.reproduction_job import load_recipe
from graftwork.core.card_search import nearest_cards
from graftwork.core.cards import Card, load_cards
from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.files import read_json
from graftwork.core.folders import check_output_file

__all__ = ["card_of", "choose_looks", "choose_seeds", "evidence_target", "recipe_of", "stored_evidence"]


def card_of(slug: str) -> Card:
    """Return the card of a system.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    cards = load_cards()
    if slug not in cards:
        near = ", ".join(card.slug for card in nearest_cards(slug)) or "see `graftwork systems`"
        raise ConfigError(f"There is no system {slug!r}. Nearest: {near}.")
    return cards[slug]


def recipe_of(card: Card) -> Recipe:
    """Return the recipe that a card names.

    Raises:
        GraftworkError: If the system is only planned.
        ConfigError: If the recipe is that of another system, or not consistent.
    """
    if not card.recipe:
        raise GraftworkError(
            f"{card.slug!r} is planned: there is a card but no recipe yet. `graftwork systems` shows which "
            f"systems can be reproduced."
        )
    return load_recipe(card.recipe, card.slug)


def choose_seeds(recipe: Recipe, *, smoke: bool, number: int | None) -> tuple[int, ...]:
    """Return the seeds to run: the recipe's, the first ``number`` of them, or more, counted on from the largest.

    Raises:
        ConfigError: If ``number`` is below 1.
    """
    seeds = recipe.smoke_seeds if smoke else recipe.seeds
    if number is None:
        return seeds
    if number < 1:
        raise ConfigError(f"--seeds must be at least 1; got {number}.")
    # Extra seeds follow the largest one, so the first are those of the recipe.
    more = range(max(seeds) + 1, max(seeds) + 1 + max(0, number - len(seeds)))
    return (*seeds, *more)[:number]


def choose_looks(recipe: Recipe, number: int) -> tuple[int, ...]:
    """Return the numbers of seeds after which a run of at most ``number`` seeds looks: the recipe's, and a further look where
    there are more seeds than the recipe plans.

    Raises:
        ConfigError: If that look would come too soon after the last one.
    """
    if number <= recipe.looks[-1]:
        return recipe.looks
    looks = (*recipe.looks, number)
    problems = check_looks(looks)
    if problems:
        raise ConfigError(
            f"--seeds {number} adds a look to those of the recipe {recipe.slug!r}, which cannot be planned.", problems
        )
    return looks


def stored_evidence(card: Card, target: Path) -> Mapping[str, Any] | None:
    """Return the content of the evidence file that a run will write, with its pilot; where there is none, that of the package."""
    if not target.exists():
        # A card reads its file once: one that is not there yet must not be remembered as none.
        return None if target == card.evidence_file else card.evidence
    content = read_json(target)
    return content if isinstance(content, dict) else None


def evidence_target(out: str | Path) -> Path:
    """Return where evidence goes.

    Raises:
        ConfigError: If a file lies there that is not evidence.
    """
    target = check_output_file(out, ())
    if os.path.lexists(target):
        try:
            found = read_json(target)
        except (FileFormatError, OSError):
            # A damaged file is the user's as well: it is not replaced.
            found = None
        if not isinstance(found, dict) or not str(found.get("format")).startswith("graftwork-evidence-"):
            raise ConfigError(f"{target} is not evidence of graftwork, so it is not replaced. Name another file with --out.")
    return target
