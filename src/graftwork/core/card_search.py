"""Finding cards by slug, words or arXiv number. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from graftwork.core.cards import Card, load_cards

__all__ = ["find_cards", "nearest_cards"]


def find_cards(words: str, cards: Mapping[str, Card] | None = None) -> list[Card]:
    """Return the cards that fit a slug, an arXiv number or address, or words, best first; empty if none fits.

    Every word must occur, in slug, title, tags, room, kind or summary; hits in the first ones count more.

    Example:
        >>> [card.slug for card in find_cards("arXiv:2306.01708v2")]
        ['ties']
    """
    cards = load_cards() if cards is None else cards
    query = words.strip().lower()
    if query in cards:
        return [cards[query]]
    # `arXiv:2306.01708v2`, `.../abs/2306.01708` and `.../pdf/2306.01708v1.pdf` all become `2306.01708`.
    number = query.removesuffix(".pdf").rsplit("/", 1)[-1].removeprefix("arxiv:").strip().partition("v")[0]
    by_paper = [card for card in cards.values() if card.arxiv and card.arxiv == number]
    if by_paper:
        return by_paper
    wanted = query.replace("-", " ").split()
    if not wanted:
        return []
    scored = []
    for card in cards.values():
        places = (
            (8, card.slug),
            (6, card.title),
            (4, " ".join(card.tags)),
            (2, f"{card.room} {card.kind} {card.field}"),
            (1, card.summary),
        )
        texts = [(weight, text.lower().replace("-", " ")) for weight, text in places]
        # A word scores by its best place only; a long summary cannot outweigh a title.
        points = [max((weight for weight, text in texts if word in text), default=0) for word in wanted]
        if all(points):
            # No two slugs are equal, so the sort never gets to compare cards, which have no order.
            scored.append((-sum(points), card.slug, card))
    return [card for _, _, card in sorted(scored)]


def nearest_cards(words: str, cards: Mapping[str, Card] | None = None, *, limit: int = 3) -> list[Card]:
    """Return the cards whose slug or title looks most like ``words``, for messages; empty if nothing is near."""
    import difflib

    cards = load_cards() if cards is None else cards
    query = words.strip().lower()
    names = {card.slug: card for card in cards.values()}
    for card in cards.values():
        # setdefault: slugs came first, so a title or tag never hides the card of that slug.
        names.setdefault(card.title.partition(":")[0].lower(), card)
        for word in card.tags:
            names.setdefault(word.lower(), card)
    hits = difflib.get_close_matches(query, list(names), n=limit, cutoff=0.5)
    return list({names[hit].slug: names[hit] for hit in hits}.values())
