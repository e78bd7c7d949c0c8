"""``graftwork show``: one system in full, by slug, words, or arXiv number."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftwork.cli.shared_flags import add_json_argument

if TYPE_CHECKING:
    from graftwork.core.cards import Card

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "show"
HELP = "show one system: paper, claim, code, evidence (by slug, words or arXiv number)"
EXAMPLES = """examples:
  graftwork show ties
  graftwork show model merging
  graftwork show arXiv:2306.01708"""

_INDENT = 13
_WIDE = 100
"""Characters of a line from which inequalities show both sides."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "words", nargs="+", metavar="WORDS", help="slug (ties), words (merging sign), or arXiv number (2306.01708)"
    )
    add_json_argument(parser, "cards, and evidence if there is any,")


def run(arguments: argparse.Namespace) -> int:
    """Show the card that the words mean, or list the cards that fit."""
    from graftwork.cli.systems import systems_table
    from graftwork.cli.tables import terminal_width
    from graftwork.core.card_search import find_cards, nearest_cards
    from graftwork.core.errors import ConfigError

    words = " ".join(arguments.words)
    cards = find_cards(words)
    if not cards:
        from graftwork.workflows.portfolio import load_catalogue

        if words in load_catalogue():
            raise ConfigError(f"No system fits {words!r}, but there is a plan of that name. See: graftwork plans {words}")
        near = ", ".join(card.slug for card in nearest_cards(words))
        hint = f"Nearest: {near}." if near else "`graftwork systems` lists them all."
        raise ConfigError(f"No system fits {words!r}. {hint}")
    if arguments.json:
        print(json.dumps([{**card.to_json(), "evidence": card.evidence} for card in cards], ensure_ascii=False, indent=2))
    elif len(cards) == 1:
        print(describe_card(cards[0], terminal_width()))
    else:
        print(systems_table(cards, terminal_width()))
        print(f"\n{len(cards)} systems fit {words!r}, the best first. `graftwork show {cards[0].slug}` shows the first.")
    return 0


def describe_card(card: Card, width: int) -> str:
    """Return everything that is known about a system, for a terminal of ``width`` characters."""
    from graftwork.cli.tables import colour, paragraph

    width = min(width, 110)

    def entry(label: str, text: str) -> str:
        return paragraph(text, width=width, label=label, indent=_INDENT)

    def entries(label: str, texts: tuple[str, ...]) -> list[str]:
        # Of several sentences below each other it must be seen where each begins.
        mark = "- " if len(texts) > 1 and any(" " in text for text in texts) else ""
        indent = _INDENT + len(mark)
        return [
            paragraph(text, width=width, label=(label if index == 0 else "").ljust(_INDENT) + mark, indent=indent)
            for index, text in enumerate(texts)
        ]

    lines = [colour(f"{card.slug}: {card.title}", "bold"), ""]
    lines.append(entry("paper", f"{card.year}, {'arXiv:' + card.arxiv + ', ' if card.arxiv else ''}{card.link}"))
    lines.append(entry("room", f"{card.room} ({card.kind}{', ' + card.field if card.field else ''})"))
    lines.append(entry("verdict", card.status))
    lines += ["", entry("summary", card.summary), "", entry("claim", card.claim)]
    if card.paper_claim:
        lines += ["", entry("paper says", card.paper_claim)]
    for label, texts in (
        ("essential", card.essentials),
        ("departures", card.departures),
        ("components", card.components),
        ("seams", card.seams),
        ("recipe", (card.recipe,) if card.recipe else ()),
        ("extras", card.extras),
        ("plans", tuple(str(plan.get("name", "")) for plan in card.plans)),
    ):
        if texts:
            lines += ["", *entries(label, texts)]
    if card.evidence is not None and card.is_built and card.has_run:
        lines += ["", *evidence_lines(card.evidence, width, stale_reason=card.stale_reason)]
    if card.analysis:
        lines += ["", *entries("analysis", card.analysis)]
    lines += ["", _next_step(card)]
    return "\n".join(lines)


def evidence_lines(evidence: Mapping[str, Any], width: int, *, stale_reason: str) -> list[str]:
    """Return the stored inequalities as a table, with what they were measured on."""
    from graftwork.cli.tables import paragraph

    commit = str(evidence.get("commit", ""))[:12] or "no commit"
    state = f"stale, so it is no verdict: {stale_reason}" if stale_reason else f"{evidence['verdict']}: {evidence['reason']}"
    dirty = ", with local changes" if evidence.get("dirty") else ""
    head = (
        f"{state}; {len(evidence['seeds'])} seeds, {float(evidence['seconds']) / 60:.1f} min, "
        f"{str(evidence['created'])[:10]}, {commit}{dirty}"
    )
    lines = [
        paragraph(head, width=width, label="evidence", indent=_INDENT),
        "",
        findings_table(evidence["inequalities"], width),
        "",
    ]
    for finding in evidence["inequalities"]:
        if finding.get("state", "shown") != "shown":
            lines.append(
                paragraph(f"{finding['name']}: {finding['reason']}", width=width, label=f"  {finding['state']}: ", indent=4)
            )
    for item in evidence.get("headroom", []):
        lines.append(paragraph(_headroom_sentence(item), width=width, label=f"  headroom {item['state']}: ", indent=4))
    for warning in evidence.get("convergence", {}).get("warnings", []):
        lines.append(paragraph(warning, width=width, label="  warning: ", indent=4))
    return lines if lines[-1] else lines[:-1]


def _headroom_sentence(item: Mapping[str, Any]) -> str:
    ahead = item["difference"]
    unit = f" {item['unit']}" if item["unit"] else ""
    return (
        f"{item['bound']} is ahead of {item['baseline']} by {ahead['value']:.3g}{unit} "
        f"[{ahead['low']:.3g}, {ahead['high']:.3g}], at least {item['needed']:.3g} are needed"
    )


def findings_table(findings: Sequence[Mapping[str, Any]], width: int, *, judged: bool = True) -> str:
    """Return a table of inequalities with their numbers (the same for ``show`` and ``reproduce``).

    Args:
        findings: The list ``inequalities`` of evidence.
        width: Characters in a line.
        judged: False for runs that give no verdict; the first column then says nothing.
    """
    from graftwork.cli.tables import format_table
    from graftwork.reporting.formatting import plain_numbers, signed_numbers

    rows = []
    for item in findings:
        interval = item["difference"]
        value, low, high = signed_numbers(interval["value"], interval["low"], interval["high"])
        left, right = plain_numbers(item["left_mean"], item["right_mean"], digits=4)
        # One seed has no interval.
        spread = f"[{low}, {high}]" if len(item["differences"]) > 1 else "one seed"
        rows.append(
            [
                item.get("state", "-") if judged else "-",
                item["name"] + ("" if item["primary"] else " (secondary)"),
                left,
                right,
                f"{value} {item['unit']}".rstrip(),
                spread,
                f"{item['signs']}/{len(item['differences'])}",
            ]
        )
    header = ["", "inequality", "left", "right", "difference", "95 % interval", "signs"]
    # The difference says what counts: names of inequalities need the room.
    if width < _WIDE:
        header, *rows = [[*row[:2], *row[4:]] for row in (header, *rows)]
    numbers = tuple(header.index(name) for name in ("left", "right", "difference") if name in header)
    return format_table(header, rows, width=width, stretch=1, right=numbers, wrap=True)


def _next_step(card: Card) -> str:
    if not card.is_built:
        return f"Planned: no code yet. `graftwork new method {card.room} {card.slug}` starts it in a source checkout."
    return f"Run it yourself: graftwork reproduce {card.slug} (add --smoke for seconds)"
