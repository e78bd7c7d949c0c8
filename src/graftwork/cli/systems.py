"""``graftwork systems``: what is in the box, and whether it holds."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING

from graftwork.cli.shared_flags import add_json_argument

if TYPE_CHECKING:
    from graftwork.core.cards import Card

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "systems"
HELP = "list all published systems with room, kind and verdict"
EXAMPLES = """examples:
  graftwork systems
  graftwork systems --room merging
  graftwork systems --verdict holds --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    from graftwork.core.cards import ROOMS, STATUSES

    parser.add_argument("--room", metavar="ROOM", help=f"only this room: {', '.join(ROOMS)}")
    parser.add_argument("--verdict", metavar="WORD", help=f"only this verdict: {', '.join(STATUSES)}")
    add_json_argument(parser, "the systems")


def run(arguments: argparse.Namespace) -> int:
    """List the systems."""
    from graftwork.cli.tables import terminal_width
    from graftwork.core.cards import ROOMS, STATUSES, load_cards

    room = _checked("room", arguments.room, ROOMS)
    verdict = _checked("verdict", arguments.verdict, STATUSES)
    cards = [card for card in load_cards().values() if room in (None, card.room) and verdict in (None, card.status)]
    # What is built comes first: that is what one can use.
    cards.sort(key=lambda card: (card.status == "planned", card.room, card.slug))
    if arguments.json:
        print(json.dumps([card.to_json() for card in cards], ensure_ascii=False, indent=2))
        return 0
    if cards:
        print(systems_table(cards, terminal_width()))
        print()
    counts = Counter[str](card.status for card in cards)
    parts = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    print(
        f"{len(cards)} system{'' if len(cards) == 1 else 's'}{': ' + parts if parts else ''}. `graftwork show SLUG` tells more."
    )
    return 0


def systems_table(cards: list[Card], width: int) -> str:
    """Return the listing of some cards; narrow terminals leave out kind and year."""
    from graftwork.cli.tables import format_table

    # Titles are what narrow terminals would cut first.
    if width < 90:
        rows = [[card.slug, card.room, card.status, card.title] for card in cards]
        return format_table(["slug", "room", "verdict", "title"], rows, width=width, stretch=3)
    rows = [[card.slug, card.room, card.kind, str(card.year), card.status, card.title] for card in cards]
    return format_table(["slug", "room", "kind", "year", "verdict", "title"], rows, width=width, stretch=5)


def _checked(key: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is None or value in allowed:
        return value
    from graftwork.core.errors import ConfigError
    from graftwork.core.nearest import did_you_mean

    raise ConfigError(f"There is no {key} {value!r}; allowed: {', '.join(allowed)}.{did_you_mean(value, allowed)}")
