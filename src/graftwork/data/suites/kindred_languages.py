"""Procedural languages of one latent grammar: the same meanings, in words, orders and affixes of each language's own.

A meaning is an event: someone does something to someone or something, with adjectives, number and tense. Verbs choose the classes of
who acts and of what is acted on, and adjectives the classes of nouns, so that texts alone tell which words belong together. A
language says a meaning in its own words, one token each, its own order of subject, verb and object, adjectives before or after nouns,
and affixes before or after words. A share of the words and affixes is cognate with those of the first language: the same token, as
multilingual encoders share pieces of words between languages.

What is labelled is latent, and so the same in all languages: the class of every word, and the class of who acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds

__all__ = [
    "CLS",
    "FIRST_TOKEN",
    "MASK",
    "NUM_AGENTS",
    "NUM_TAGS",
    "PAD",
    "TEXT_LENGTH",
    "Events",
    "KindredLanguages",
    "Language",
]

Array = NDArray[Any]

PAD, CLS, MASK = 0, 1, 2
FIRST_TOKEN = 3
_NOUNS, _VERBS, _ADJECTIVES = (4, 6), (4, 4), (2, 4)
"""Classes, and words of each."""
_FIRST_VERB = _NOUNS[0] * _NOUNS[1]
_FIRST_ADJECTIVE = _FIRST_VERB + _VERBS[0] * _VERBS[1]
NUM_WORDS = _FIRST_ADJECTIVE + _ADJECTIVES[0] * _ADJECTIVES[1]
_WORD_TAGS = np.repeat(np.arange(10), [6] * 4 + [4] * 4 + [4] * 2)
_PLURAL, _PAST, _OBJECT = 10, 11, 12
NUM_TAGS = 13
"""Classes of nouns (4), of verbs (4) and of adjectives (2); plural, past, object."""
NUM_AGENTS = _NOUNS[0]
NUM_AFFIXES = 3
TEXT_LENGTH = 10
"""Tokens of a text: its beginning, five words, four affixes."""
ORDERS = ("SVO", "SOV", "VSO")
_FAITHFUL = 0.9
"""Probability that a verb or an adjective gets a noun of the class that it chooses."""


@dataclass(frozen=True, slots=True)
class Language:
    """How one language says things."""

    words: Array
    """Token of every word, int64 ``[NUM_WORDS]``."""
    cognate: Array
    """Which words are those of the first language, bool ``[NUM_WORDS]``."""
    order: str
    """Of subject, verb and object."""
    adjective_first: bool
    prefixes: bool
    """Whether affixes stand before words."""
    affixes: tuple[int, int, int]
    """Tokens of plural, past and object."""


@dataclass(frozen=True, slots=True)
class Events:
    """Meanings, one a row."""

    subject: Array
    """Numbers of nouns, int64 ``[N]``; likewise the others."""
    verb: Array
    object: Array
    subject_adjective: Array
    """-1 where there is none."""
    object_adjective: Array
    subject_plural: Array
    """Bool."""
    object_plural: Array
    past: Array

    def __len__(self) -> int:
        return len(self.subject)

    @property
    def agent(self) -> Array:
        """Class of who acts, int64 ``[N]``, below :data:`NUM_AGENTS`."""
        return _WORD_TAGS[self.subject]


class KindredLanguages:
    """A grammar and its languages; the first one is the origin of cognates, with the order SVO.

    Args:
        count: Number of languages, at least 1.
        cognates: Share of the words of each other language that are spelled as in the first one, in [0, 1].
        seed: Draws grammar, languages and everything else.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, count: int = 6, *, cognates: float = 0.3, seed: int = 0) -> None:
        if count < 1:
            raise ConfigError(f"`count` must be at least 1; got {count!r}.")
        if not 0.0 <= cognates <= 1.0:
            raise ConfigError(f"`cognates` must be in [0, 1]; got {cognates!r}.")
        self._seeds = Seeds(seed).child("kindred languages")
        draw = self._seeds.numpy("grammar")
        # Permutations: no two classes of verbs choose the same nouns in both places.
        self.subjects_of, self.objects_of = draw.permutation(_NOUNS[0]), draw.permutation(_NOUNS[0])
        """Class of subjects, and of objects, that each class of verbs chooses, int64 ``[4]``."""
        self.nouns_of = draw.permutation(_NOUNS[0]).reshape(_ADJECTIVES[0], -1)
        """Classes of nouns that each class of adjectives chooses, int64 ``[2, 2]``."""
        self.num_tokens = FIRST_TOKEN
        """Codes of tokens: padding, beginning, mask, words and affixes of all languages."""
        languages = [self._language(0, ORDERS[0], None, 1.0)]
        for number in range(1, count):
            languages.append(self._language(number, ORDERS[number % len(ORDERS)], languages[0], cognates))
        self.languages: tuple[Language, ...] = tuple(languages)

    def _language(self, number: int, order: str, first: Language | None, cognates: float) -> Language:
        draw = self._seeds.numpy(f"language/{number}")
        cognate = np.zeros(NUM_WORDS + NUM_AFFIXES, dtype=bool)
        for tag in range(10):
            # The same share of every class, so that none is foreign as a whole.
            own = draw.permutation(np.flatnonzero(tag == _WORD_TAGS))
            cognate[own[: round(cognates * len(own))]] = True
        cognate[NUM_WORDS:] = draw.random(NUM_AFFIXES) < cognates
        tokens = self.num_tokens + np.cumsum(~cognate) - 1
        if first is not None:
            tokens = np.where(cognate, np.concatenate([first.words, first.affixes]), tokens)
        else:
            tokens = self.num_tokens + np.arange(len(cognate))
        self.num_tokens = max(self.num_tokens, int(tokens.max()) + 1)
        affixes = tokens[NUM_WORDS:]
        return Language(
            words=tokens[:NUM_WORDS],
            cognate=cognate[:NUM_WORDS],
            order=order,
            adjective_first=bool(draw.integers(2)),
            prefixes=bool(draw.integers(2)),
            affixes=(int(affixes[0]), int(affixes[1]), int(affixes[2])),
        )

    def events(self, count: int, name: str) -> Events:
        """Draw meanings.

        Args:
            count: How many.
            name: Names the stream: equal names give equal meanings.
        """
        draw = self._seeds.numpy(f"events/{name}")
        verb_class = draw.integers(_VERBS[0], size=count)
        subject = self._noun(self.subjects_of[verb_class], draw)
        object_ = self._noun(self.objects_of[verb_class], draw)
        return Events(
            subject=subject,
            verb=_FIRST_VERB + verb_class * _VERBS[1] + draw.integers(_VERBS[1], size=count),
            object=object_,
            subject_adjective=self._adjective(subject, draw),
            object_adjective=self._adjective(object_, draw),
            subject_plural=draw.random(count) < 0.5,
            object_plural=draw.random(count) < 0.5,
            past=draw.random(count) < 0.5,
        )

    def _noun(self, chosen: Array, draw: np.random.Generator) -> Array:
        strays = draw.integers(_NOUNS[0], size=len(chosen))
        classes = np.where(draw.random(len(chosen)) < _FAITHFUL, chosen, strays)
        return classes * _NOUNS[1] + draw.integers(_NOUNS[1], size=len(chosen))

    def _adjective(self, noun: Array, draw: np.random.Generator) -> Array:
        classes = _WORD_TAGS[noun]
        fitting = np.argmax((self.nouns_of[None] == classes[:, None, None]).any(axis=2), axis=1)
        chosen = np.where(draw.random(len(noun)) < _FAITHFUL, fitting, draw.integers(_ADJECTIVES[0], size=len(noun)))
        word = _FIRST_ADJECTIVE + chosen * _ADJECTIVES[1] + draw.integers(_ADJECTIVES[1], size=len(noun))
        return np.where(draw.random(len(noun)) < 0.4, word, -1)

    def say(self, events: Events, language: int) -> tuple[Array, Array]:
        """Return meanings in a language.

        Args:
            events: The meanings.
            language: Number of the language.

        Returns:
            Tokens int64 ``[N, TEXT_LENGTH]``, padded by :data:`PAD`; and the tag of each, -1 at the beginning and in padding.
        """
        how = self.languages[language]
        plural, past, marked = how.affixes
        everyone = np.ones(len(events), dtype=bool)
        parts = {
            "S": self._phrase(how, events.subject, events.subject_adjective, [(plural, _PLURAL, events.subject_plural)]),
            "V": self._word(how, events.verb, [(past, _PAST, events.past)]),
            "O": self._phrase(
                how,
                events.object,
                events.object_adjective,
                [(plural, _PLURAL, events.object_plural), (marked, _OBJECT, everyone)],
            ),
        }
        slots = [pair for role in how.order for pair in parts[role]]
        tokens, tags = (np.stack(column, axis=1) for column in zip(*slots, strict=True))
        # Absent slots to the end; what is there keeps its order.
        order = np.argsort(tokens == PAD, axis=1, kind="stable")
        tokens, tags = np.take_along_axis(tokens, order, axis=1), np.take_along_axis(tags, order, axis=1)
        beginning = np.full((len(events), 1), CLS)
        tokens = np.concatenate([beginning, tokens], axis=1)[:, :TEXT_LENGTH]
        tags = np.concatenate([np.full((len(events), 1), -1), tags], axis=1)[:, :TEXT_LENGTH]
        return tokens.astype(np.int64), tags.astype(np.int64)

    def _phrase(
        self, how: Language, noun: Array, adjective: Array, affixes: Sequence[tuple[int, int, Array]]
    ) -> list[tuple[Array, Array]]:
        described, named = self._word(how, adjective, ()), self._word(how, noun, affixes)
        return [*described, *named] if how.adjective_first else [*named, *described]

    def _word(self, how: Language, word: Array, affixes: Sequence[tuple[int, int, Array]]) -> list[tuple[Array, Array]]:
        """Return tokens and tags slot by slot; absent words have padding there."""
        there = word >= 0
        tag = np.where(there, _WORD_TAGS[word], -1)
        stem = [(np.where(there, how.words[word], PAD), tag)]
        added = [(np.where(used, token, PAD), np.where(used, kind, -1)) for token, kind, used in affixes]
        return [*added, *stem] if how.prefixes else [*stem, *added]
