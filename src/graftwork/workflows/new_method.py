"""The verb ``new method``: start the five files of a system in a source checkout, so that it is found everywhere without an edit
elsewhere."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from graftwork.core.cards import ROOMS, Card, read_card
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.files import write_text
from graftwork.core.source_hash import PACKAGE_FOLDER
from graftwork.workflows.seam_source import seam_source

__all__ = ["NewMethod", "new_method", "source_root"]

_FOLDERS = {
    "applications": "domains/{field}",
    "timeseries": "domains/timeseries",
    "backbones": "nn/backbones",
    "benchmarks": "data/protocols",
    "scaling": "training",
}
_SEAMS = {
    "backbones": "Backbone",
    "continual": "ContinualMethod",
    "merging": "Merger",
    "optimization": "WeightBalancer",
    "selection": "Scorer",
    "sharing": "SharedModel",
    "tuning": "Tuner",
    "adaptation": "Objective",
    "distillation": "Objective",
    "generation": "Generator",
    "robustness": "Objective",
}
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class NewMethod:
    """What was written."""

    card: Path
    written: tuple[Path, ...]
    """New files, and the card if components were added to it."""
    evidence: Path
    """The fifth file; ``graftwork reproduce`` writes it."""
    slug: str
    notes: tuple[str, ...] = field(default=())


def source_root(package: Path = PACKAGE_FOLDER) -> Path:
    """Return the root of the source checkout that graftwork runs from.

    Raises:
        GraftworkError: If it runs from an installed package.
    """
    root = package.parents[1]
    if package.parent.name != "src" or not (root / "pyproject.toml").exists():
        raise GraftworkError(
            f"New systems are written in a source checkout, but graftwork runs from {package}. "
            "Clone the repository, install it with `pip install -e .`, and run the command there."
        )
    return root


def new_method(
    room: str,
    slug: str,
    *,
    root: Path | None = None,
    seam: str | None = None,
    field: str = "",
    details: Mapping[str, str] | None = None,
) -> NewMethod:
    """Write card, module, recipe and test of a system; the test fails until the method is written.

    A planned system's card is kept and gets its components; a system without a card needs ``details``.

    Args:
        room: One of :data:`graftwork.core.cards.ROOMS`.
        slug: Lower case letters, digits and single hyphens.
        root: Root of the source checkout; found by itself by default.
        seam: Interface to implement; the room's usual one by default, empty for none.
        field: Field of application for the room ``applications`` (``"vision"``), or to put any system into ``domains/<field>``.
        details: ``title``, ``year``, ``link``, ``summary`` and ``claim`` of a system without a card.

    Raises:
        ConfigError: If a name is not allowed, a detail is missing, or the card says another room.
        GraftworkError: If a file is there already, or this is no source checkout. Nothing is written then.
    """
    if room not in ROOMS:
        raise ConfigError(f"There is no room {room!r}; the rooms are {', '.join(ROOMS)}.")
    if not _SLUG.fullmatch(slug):
        raise ConfigError(f"A slug has lower case letters, digits and single hyphens; got {slug!r}.")
    root = source_root() if root is None else root
    # Slugs have hyphens, modules cannot.
    package, stem = root / "src" / "graftwork", slug.replace("-", "_")
    card_path = package / "cards" / f"{slug}.toml"
    card = read_card(card_path) if card_path.exists() else None
    if card is not None and (card.is_built or card.room != room):
        state = "is built already" if card.is_built else f"belongs to the room {card.room!r}"
        raise ConfigError(f"The system {slug!r} {state}; see {card_path}.")
    folder = _folder(room, field or (card.field if card else ""))
    names = {
        "module": f"graftwork.{folder.replace('/', '.')}.{stem}",
        "recipe": f"graftwork.recipes.{room}.{stem}",
        "cls": _class_name(slug, (card.title if card else (details or {}).get("title", "")) or ""),
    }
    chosen_seam = _SEAMS.get(room, "") if seam is None else seam
    texts = {**_texts(slug, room, card, details or {}), **names}
    texts["imports"], texts["base"], texts["methods"] = seam_source(chosen_seam)
    files = {
        package / folder / f"{stem}.py": _fill("module.py", texts),
        package / "recipes" / room / f"{stem}.py": _fill("recipe.py", texts),
        root / "tests" / "unit" / folder / f"test_{stem}.py": _fill("test.py", texts),
    }
    # Everything is looked at before the first file is written.
    taken = [str(path.relative_to(root)) for path in files if path.exists()]
    if taken:
        raise GraftworkError(
            f"Nothing was written, because these files exist: {', '.join(taken)}. Move them away, or choose another slug."
        )
    lines = _card_lines(names, chosen_seam)
    files[card_path] = _with_components(card_path.read_text("utf-8"), lines) if card else _fill("card.toml", texts) + lines
    for path, text in files.items():
        if path.suffix == ".py":
            _make_packages(path.parent, package)
        write_text(path, text)
    return NewMethod(card=card_path, written=tuple(files), evidence=package / "results" / room / f"{slug}.json", slug=slug)


def _class_name(slug: str, title: str) -> str:
    """Return the name of the class: as the paper's title spells the slug, if it does.

    Example:
        >>> _class_name("rep-mtl", "Rep-MTL: Unleashing the Power of Task Saliency")
        'RepMTL'
        >>> _class_name("ttm", "Tiny Time Mixers (TTMs): Fast Pre-trained Models")
        'TTM'
        >>> _class_name("fisher-merging", "Merging Models with Fisher-Weighted Averaging")
        'FisherMerging'
    """
    wanted = slug.replace("-", "")
    words = re.findall(r"[A-Za-z0-9]+", title)
    for first in range(len(words)):
        for last in range(first + 1, min(first + 5, len(words)) + 1):
            spelt = "".join(word[0].upper() + word[1:] for word in words[first:last])
            # Titles often have the plural (TTMs).
            if spelt.lower() in (wanted, f"{wanted}s"):
                name = spelt[: len(wanted)]
                # A class cannot begin with a digit.
                return name if not name[0].isdigit() else f"_{name}"
    return "".join(part.capitalize() for part in slug.split("-"))


def _make_packages(folder: Path, package: Path) -> None:
    # Stops at the package itself: the folders of tests are no packages.
    while package in folder.parents:
        if not (folder / "__init__.py").exists():
            write_text(folder / "__init__.py", "")
        folder = folder.parent


def _folder(room: str, field: str) -> str:
    if field and not re.fullmatch(r"[a-z_]+", field):
        raise ConfigError(f"A field is one lower case word; got {field!r}.")
    if room == "applications" and not field:
        raise ConfigError(
            "The room 'applications' needs a field: give --field vision, tabular, text, recommendation, graphs or science."
        )
    if room == "studies":
        return "evaluation"
    if field and room not in _FOLDERS:
        return f"domains/{field}"
    return _FOLDERS.get(room, f"methods/{room}").format(field=field)


def _texts(slug: str, room: str, card: Card | None, details: Mapping[str, str]) -> dict[str, str]:
    if card is not None:
        values = {"title": card.title, "year": str(card.year), "link": card.link, "summary": card.summary, "claim": card.claim}
        essentials = card.essentials
    else:
        missing = [f"--{name}" for name in ("title", "year", "link", "summary", "claim") if not details.get(name)]
        if missing:
            raise ConfigError(f"There is no card of {slug!r} yet, so these are needed: {', '.join(missing)}.")
        values, essentials = dict(details), (details["summary"],)
        if not values["year"].isdigit():
            raise ConfigError(f"--year is a number; got {values['year']!r}.")
    tests = "".join(_test_source(number, text) for number, text in enumerate(essentials, start=1))
    paper_claim = card.paper_claim if card and card.paper_claim else "not stated on the card"
    quoted = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in essentials)
    return {**values, "slug": slug, "room": room, "tests": tests.strip(), "paper_claim": paper_claim, "essentials": quoted}


def _test_source(number: int, essential: str) -> str:
    words = [word for word in re.findall(r"[a-z0-9]+", essential.lower()) if word not in ("a", "an", "the", "of", "and", "or")][
        :5
    ]
    text = json.dumps(f"Show on a tiny input: {essential}", ensure_ascii=False)
    line = f"    pytest.fail({text})"
    if len(line) > 130:
        line = f"    pytest.fail(\n        {text}\n    )"
    return f"\n\ndef test_essential_{number}_{'_'.join(words)}() -> None:\n{line}\n"


def _fill(name: str, texts: Mapping[str, str]) -> str:
    template = Template((PACKAGE_FOLDER / "workflows" / "templates" / f"{name}.tmpl").read_text(encoding="utf-8"))
    values = dict(texts)
    if name == "card.toml":
        values |= {
            key: json.dumps(values[key], ensure_ascii=False) for key in ("slug", "title", "link", "room", "summary", "claim")
        }
    else:
        for key in ("summary", "claim", "paper_claim"):
            values[key] = textwrap.fill(values[key].replace('"', "'"), 110)
    return template.safe_substitute(values)


def _card_lines(names: Mapping[str, str], seam: str) -> str:
    seams = f'seams = ["{seam}"]\n' if seam else ""
    return f'components = ["{names["module"]}:{names["cls"]}"]\nrecipe = "{names["recipe"]}"\n{seams}'


def _with_components(text: str, lines: str) -> str:
    # keys of the card itself must stand before its first table
    match = re.search(r"^\[", text, flags=re.MULTILINE)
    place = match.start() if match else len(text)
    return text[:place].rstrip("\n") + "\n" + lines + ("\n" if match else "") + text[place:]
