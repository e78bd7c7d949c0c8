"""The same flag means the same in every verb: one metavar, one type, one set of choices, one sentence."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
from all_verbs import parsers

PARSERS = parsers()
OTHERS = {
    # What is called alike there means another thing: a model that is merged is no run.
    "merge": {"--base", "--metric", "--out", "--set"},
    # A build or a system has its place already; a run is named.
    "backbones": {"--resume"},
    "reproduce": {"--resume"},
}
"""Flags of verbs that need not look as elsewhere, with the reason."""
SENTENCES = {
    "--backbone": r"pretrained backbone \(see graftwork backbones\), .*",
    "--device": r"where .* \(default: (auto, an accelerator if there is one|cpu)\)",
    "--json": r"print .* as JSON, everything else on stderr",
    "--max-memory": r"most memory of .*, as in \d+[MG]B",
    "--method": r"a method of the list below, or package\.module:.* \(default: [\w-]+\)",
    "--modality": r"only \w+ for this kind of data",
    "--out": r".*\(default: .*\)",
    "--plans": r"plans \(see graftwork plans\): .* \(default: .*\)",
    "--quiet": r"print .* only",
    "--resume": r"go on with a stopped run.*",
    "--seed": r"root seed of .* \(default: 0\)",
    "--seeds": r"number of seeds .*",
    "--set": r"training setting.*, as in learning_rate=0\.001; may repeat",
    "--steps": r"steps of .*",
    "--threads": r"threads of ONNX Runtime.* \(default: all cores\)",
    "--time-limit": r"time for .*, as in 90s, 10m or 1h30m.*",
    "--workers": r"processes that train at the same time; 0: in this process \(default: .*\)",
}
"""Where verbs say what a flag is about, the sentence around it."""


def flags() -> Iterator[tuple[str, str, argparse.Action]]:
    """Yield verb, flag and what argparse knows of it; hidden ones have no words."""
    for verb, parser in PARSERS.items():
        for action in parser._actions:
            for name in action.option_strings:
                if name.startswith("--") and name != "--help":
                    yield verb, name, action


def shared() -> dict[str, dict[str, argparse.Action]]:
    found: dict[str, dict[str, argparse.Action]] = defaultdict(dict)
    for verb, name, action in flags():
        if name not in OTHERS.get(verb, ()):
            found[name][verb] = action
    return {name: verbs for name, verbs in found.items() if len(verbs) > 1}


@pytest.mark.parametrize("name", sorted(shared()))
def test_verbs_declare_a_flag_alike(name: str) -> None:
    verbs = shared()[name]
    # What verbs write is a file or a folder; nothing else may differ.
    forms = {
        (action.metavar if name != "--out" else "", action.nargs, action.type, tuple(action.choices or ()), type(action))
        for action in verbs.values()
    }
    assert len(forms) == 1, {verb: (action.metavar, action.nargs, action.type) for verb, action in verbs.items()}
    words = {verb: str(action.help) for verb, action in verbs.items()}
    if name in SENTENCES:
        for text in words.values():
            assert re.fullmatch(SENTENCES[name], text.replace("%%", "%")), text
    else:
        assert len(set(words.values())) == 1, words


def test_every_sentence_is_of_a_shared_flag() -> None:
    assert set(SENTENCES) <= set(shared())
    assert all(name in {flag for verb, flag, _ in flags() if verb == other} for other, names in OTHERS.items() for name in names)


@pytest.mark.parametrize("verb", sorted(PARSERS))
def test_words_about_flags_have_one_form(verb: str) -> None:
    for _, name, action in (found for found in flags() if found[0] == verb):
        text = str(action.help)
        if text == argparse.SUPPRESS:
            continue
        assert text[0].islower() or not text[0].isalpha() or text.startswith(("GRAFTWORK", "JSON")), (name, text)
        assert not text.endswith("."), (name, text)
        assert not re.search(r"\(default [^:]|; default\b|repeatable|by default", text), (name, text)
        if isinstance(action, argparse._AppendAction):
            assert text.endswith("may repeat"), (name, text)
        takes_value = action.nargs != 0 and action.choices is None
        assert not takes_value or (action.metavar and str(action.metavar).upper() != str(action.metavar).lower()), (
            name,
            action.metavar,
        )


@pytest.mark.parametrize("verb", sorted(PARSERS))
def test_positional_arguments_are_written_in_capitals(verb: str) -> None:
    for action in PARSERS[verb]._actions:
        if not action.option_strings and action.choices is None:
            assert str(action.metavar).split(".")[0].isupper(), action


@pytest.mark.parametrize("verb", ["fit", "compare", "tune", "distill", "rank"])
def test_what_every_verb_with_a_run_has(verb: str) -> None:
    names = {name for owner, name, _ in flags() if owner == verb}
    assert {"--out", "--quiet", "--json", "--seed", "--device", "--targets", "--allow-components", "--debug"} <= names
    if verb != "rank":
        assert {"--resume", "--workers", "--precision", "--set", "--steps"} <= names
