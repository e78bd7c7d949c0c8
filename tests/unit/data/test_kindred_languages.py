from __future__ import annotations

import itertools

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites.kindred_languages import (
    CLS,
    NUM_AGENTS,
    NUM_TAGS,
    NUM_WORDS,
    PAD,
    TEXT_LENGTH,
    Events,
    KindredLanguages,
)

NOUN, VERB, ADJECTIVE = range(4), range(4, 8), range(8, 10)
PLURAL, PAST, OBJECT = 10, 11, 12


def world(**options: float) -> KindredLanguages:
    return KindredLanguages(4, **{"cognates": 0.4, "seed": 3, **options})  # type: ignore[arg-type]


def one_event(**changes: int) -> Events:
    values = {"subject": 1, "verb": 25, "object": 20, "subject_adjective": -1, "object_adjective": 41} | changes
    flags = {"subject_plural": True, "object_plural": False, "past": False}
    return Events(
        **{name: np.array([value]) for name, value in values.items()},
        **{name: np.array([value]) for name, value in flags.items()},
    )


def test_a_seed_decides_everything() -> None:
    one, same, other = world(), world(), world(seed=4)
    for language in range(4):
        for first, second in zip(one.say(one.events(20, "a"), language), same.say(same.events(20, "a"), language), strict=True):
            np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one.events(20, "a").verb, one.events(20, "b").verb)
    assert not np.array_equal(one.events(20, "a").verb, other.events(20, "a").verb)


def test_words_of_a_language_are_different_and_a_share_is_that_of_the_first() -> None:
    languages = world().languages
    for language in languages:
        assert len({*language.words.tolist(), *language.affixes}) == NUM_WORDS + 3
    for language in languages[1:]:
        np.testing.assert_array_equal(language.words == languages[0].words, language.cognate)
        assert language.cognate.mean() == pytest.approx(0.4, abs=0.06)
    # Of two other languages only what is cognate in both is shared.
    for one, two in itertools.combinations(languages[1:], 2):
        shared = set(one.words.tolist()) & set(two.words.tolist())
        assert shared == set(languages[0].words[one.cognate & two.cognate].tolist())
    alone = world(cognates=0.0).languages
    assert not set(alone[0].words.tolist()) & set(alone[1].words.tolist())


def test_a_sentence_is_said_word_by_word() -> None:
    languages = world()
    for number, language in enumerate(languages.languages):
        tokens, tags = languages.say(one_event(), number)
        assert tokens.shape == tags.shape == (1, TEXT_LENGTH)
        plural, _, marked = language.affixes
        subject, verb, thing, adjective = (int(language.words[word]) for word in (1, 25, 20, 41))
        subject_word = [plural, subject] if language.prefixes else [subject, plural]
        object_word = [marked, thing] if language.prefixes else [thing, marked]
        phrase = [adjective, *object_word] if language.adjective_first else [*object_word, adjective]
        parts = {"S": subject_word, "V": [verb], "O": phrase}
        expected = [CLS, *(token for role in language.order for token in parts[role])]
        assert tokens[0].tolist() == expected + [PAD] * (TEXT_LENGTH - len(expected))
        assert tags[0, 0] == -1
        assert (tags[0, len(expected) :] == -1).all()


def test_labels_are_those_of_the_meaning_in_every_language() -> None:
    languages = world()
    events = languages.events(200, "labels")
    for number, language in enumerate(languages.languages):
        tokens, tags = languages.say(events, number)
        np.testing.assert_array_equal(tags >= 0, tokens > CLS)
        assert tags.max() < NUM_TAGS
        meaning = {int(token): word for word, token in enumerate(language.words)}
        affix = dict(zip(language.affixes, (PLURAL, PAST, OBJECT), strict=True))
        for token, tag in zip(tokens[tags >= 0].tolist(), tags[tags >= 0].tolist(), strict=True):
            if token in affix:
                assert tag == affix[token]
            else:
                word = meaning[token]
                expected = word // 6 if word < 24 else 4 + (word - 24) // 4
                assert tag == expected
        # The same words in another order: as many tags of each kind.
        first = np.sort(languages.say(events, 0)[1], axis=1)
        np.testing.assert_array_equal(np.sort(tags, axis=1), first)
        assert (np.isin(tags, NOUN).sum(axis=1) == 2).all()
        assert (np.isin(tags, VERB).sum(axis=1) == 1).all()
        assert ((tags == OBJECT).sum(axis=1) == 1).all()
    assert set(events.agent.tolist()) == set(range(NUM_AGENTS))


def test_verbs_and_adjectives_choose_their_nouns() -> None:
    languages = world()
    events = languages.events(4000, "statistics")
    verb_class = (events.verb - 24) // 4
    # Nine tenths chosen, and a quarter of the others by chance.
    assert (events.agent == languages.subjects_of[verb_class]).mean() == pytest.approx(0.925, abs=0.02)
    assert (events.object // 6 == languages.objects_of[verb_class]).mean() == pytest.approx(0.925, abs=0.02)
    there = events.subject_adjective >= 0
    adjective_class = (events.subject_adjective[there] - 40) // 4
    fits = (languages.nouns_of[adjective_class] == events.agent[there, None]).any(axis=1)
    assert fits.mean() == pytest.approx(0.95, abs=0.02)


def test_faults_are_named() -> None:
    with pytest.raises(ConfigError, match="count.*got 0"):
        KindredLanguages(0)
    with pytest.raises(ConfigError, match="cognates.*got 1.5"):
        KindredLanguages(2, cognates=1.5)
