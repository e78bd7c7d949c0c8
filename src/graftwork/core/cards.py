"""Cards: one small TOML file per published system; what is in the box, and whether it holds. Standard library only.

A card says what a system claims and, once built, where its parts are. Nothing about success is written in a card: the status
comes from the evidence in ``results/<room>/<slug>.json``, and evidence counts only while its hash fits the claim, the module and
the recipe of today.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.core.source_hash import PACKAGE_FOLDER, bytes_hash, module_file, syntax_hash
from graftwork.core.toml_text import read_toml
from graftwork.core.verdicts import EVIDENCE_FORMAT, VERDICT_WORDS

__all__ = ["KINDS", "ROOMS", "STATUSES", "Card", "Status", "load_cards", "read_card"]

ROOMS = (
    "adaptation",
    "applications",
    "backbones",
    "benchmarks",
    "compression",
    "continual",
    "distillation",
    "generation",
    "merging",
    "optimization",
    "robustness",
    "scaling",
    "search",
    "selection",
    "sharing",
    "studies",
    "timeseries",
    "tuning",
    "weightgen",
)
KINDS = ("application", "architecture", "benchmark", "method", "study", "survey")

Status = Literal["planned", "no evidence", "stale", "holds", "partly", "mixed", "open", "contradicted"]
STATUSES: tuple[str, ...] = get_args(Status)

_SLUG_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One published system."""

    slug: str
    title: str
    year: int
    room: str
    kind: str
    summary: str
    claim: str
    """What the reproduction must show, in words."""
    arxiv: str = ""
    link: str = ""
    field: str = ""
    """Field of application, where the system is tied to one (``"tabular"``)."""
    paper_claim: str = ""
    essentials: tuple[str, ...] = ()
    """Points of the method that the implementation must keep."""
    tags: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    """Dotted paths ``"graftwork.module:Name"``; empty while the system is planned."""
    recipe: str = ""
    """Dotted module of the recipe."""
    aliases: tuple[str, ...] = ()
    """Shorter names that commands take besides the slug."""
    seams: tuple[str, ...] = ()
    """Names in ``graftwork.interfaces`` that the components implement."""
    extras: tuple[str, ...] = ()
    """Extras of the package that it needs."""
    departures: tuple[str, ...] = ()
    """Every difference to the paper that a reader must know."""
    analysis: tuple[str, ...] = ()
    """Where the claim does not hold as a whole here: what was tried, and what the numbers say about why."""
    contract: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Small constructor arguments for the contract tests, by class name."""
    plans: tuple[Mapping[str, Any], ...] = ()
    """Plans for the race of ``graftwork fit``, as :meth:`graftwork.core.records.Plan.from_json` reads them."""

    @property
    def is_built(self) -> bool:
        """Whether there is code: a component, or a recipe (studies have no component)."""
        return bool(self.components or self.recipe)

    @property
    def evidence_file(self) -> Path:
        """Where the evidence of a full run is kept; it may not exist."""
        return PACKAGE_FOLDER / "results" / self.room / f"{self.slug}.json"

    @property
    def has_run(self) -> bool:
        """Whether the evidence holds a counting run, fresh or stale, and not only a pilot."""
        return self.evidence is not None and bool(self.evidence.get("verdict"))

    # Frozen, but without slots: cached_property writes into ``__dict__``, which frozen does not guard.
    @functools.cached_property
    def evidence(self) -> Mapping[str, Any] | None:
        """The stored evidence, fresh or stale; None if there is none or it cannot be read."""
        try:
            stored = json.loads(self.evidence_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) else None

    @functools.cached_property
    def status(self) -> Status:
        """What is known: never a verdict whose evidence belongs to other code or to another claim."""
        if not self.is_built:
            return "planned"
        if self.evidence is None or not self.evidence.get("verdict"):
            return "no evidence"
        # Words of earlier rules are no verdict of today's.
        is_judged = self.evidence.get("format") == EVIDENCE_FORMAT and self.evidence["verdict"] in VERDICT_WORDS
        return self.evidence["verdict"] if is_judged and self.is_evidence_fresh else "stale"

    @property
    def is_evidence_fresh(self) -> bool:
        """Whether there is evidence that belongs to the claim, the modules and the recipe of today, by whatever rules it was
        judged."""
        return self.evidence is not None and self._is_fresh(self.evidence)

    @property
    def stale_reason(self) -> str:
        """Why the evidence is no verdict, in words; empty unless the status is ``stale``."""
        if self.status != "stale" or self.evidence is None:
            return ""
        if self.evidence.get("smoke", {}).get("changed"):
            return "its smoke numbers no longer come out, so shared code computes something else"
        if (self.evidence.get("pilot") or {}).get("chosen") != self.evidence.get("chosen"):
            return "a later pilot chose other settings than were counted"
        if not self.is_evidence_fresh:
            return "the code, the recipe or the claim changed since the run"
        return "it was judged by earlier rules; `graftwork reproduce SLUG --rejudge` judges its numbers again"

    def source_files(self) -> list[Path]:
        """Return the files whose syntax the evidence depends on: the modules of the components, then the recipe."""
        # Several components can share a module; its file counts once. The order is part of the hash.
        modules = dict.fromkeys(path.partition(":")[0] for path in self.components)
        return [module_file(name) for name in [*modules, *([self.recipe] if self.recipe else [])]]

    def evidence_hash(self) -> str:
        """Return the hash over claim, modules and recipe that evidence of today would carry.

        Raises:
            ConfigError: If a file that the card names is not there.
        """
        for file in self.source_files():
            if not file.exists():
                raise ConfigError(f"Card {self.slug!r} names a module that does not exist: {file}.")
        return syntax_hash([self.claim], self.source_files())

    def bytes_hash(self) -> str:
        """Return the hash over the same parts byte by byte; it spares the parsing as long as nothing was touched."""
        return bytes_hash([self.claim], self.source_files())

    def to_json(self) -> dict[str, Any]:
        """Return the card as a JSON object, with its status."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {**plain, "status": self.status}

    def _is_fresh(self, evidence: Mapping[str, Any]) -> bool:
        if evidence.get("smoke", {}).get("changed"):  # shared code computes something else than when the verdict was made
            return False
        if (evidence.get("pilot") or {}).get("chosen") != evidence.get("chosen"):  # a later pilot chose other settings
            return False
        try:
            # The cheap test first: parsing the modules of every card would make listing commands slow.
            return evidence.get("bytes_hash") == self.bytes_hash() or evidence.get("evidence_hash") == self.evidence_hash()
        except (OSError, SyntaxError, ConfigError):
            return False


_REQUIRED = ("slug", "title", "year", "room", "kind", "summary", "claim")
_KNOWN = tuple(item.name for item in fields(Card))
_LINK = re.compile(r"https?://[^\s<>\"'()\[\]\\`]+")
_LISTS = ("essentials", "tags", "components", "aliases", "seams", "extras", "departures", "analysis")


def read_card(path: Path) -> Card:
    """Read and check one card.

    Raises:
        ConfigError: If it is not TOML, lacks a key, has an unknown one, or a value is not allowed; all problems at once.
    """
    try:
        table = read_toml(path)
    except ValueError as error:
        raise ConfigError(f"The card {path} is not valid TOML: {error}.") from error
    problems = _problems(path, table)
    if problems:
        raise ConfigError(f"The card {path} cannot be used.", problems)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Card(**values)


def _problems(path: Path, table: Mapping[str, Any]) -> list[str]:
    # An empty text counts as missing too.
    problems = [f"missing key {key!r}" for key in _REQUIRED if not table.get(key)]
    for key in table:
        if key not in _KNOWN:
            problems.append(f"unknown key {key!r}.{did_you_mean(key, _KNOWN)} Known keys: {', '.join(_KNOWN)}")
    slug = str(table.get("slug", ""))
    if slug != path.stem:
        problems.append(f"slug {slug!r} is not the name of the file, {path.stem!r}")
    if not set(slug) <= _SLUG_LETTERS:
        problems.append(f"slug {slug!r}: lower case letters, digits and hyphens only")
    for key, allowed in (("room", ROOMS), ("kind", KINDS)):
        value = table.get(key)
        if value and value not in allowed:
            problems.append(f"there is no {key} {value!r}.{did_you_mean(str(value), allowed)} Allowed: {', '.join(allowed)}")
    if "year" in table and not isinstance(table["year"], int):
        problems.append(f"year is a number; got {table['year']!r}")
    for key in _LISTS:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            problems.append(f"{key} is a list of texts; got {value!r}")
        elif key == "components" and not all(item.startswith("graftwork.") and ":" in item for item in value):
            problems.append(f"components are dotted paths 'graftwork.module:Name'; got {value!r}")
    link = table.get("link", "")
    # It becomes a link on pages, where `javascript:` would run.
    if not isinstance(link, str) or not (link == "" or _LINK.fullmatch(link)):
        problems.append(f"link is an address that begins with http:// or https://, without spaces; got {link!r}")
    if table.get("components") and not table.get("recipe"):
        problems.append("a card with components names its recipe")
    return problems


def load_cards(folder: str | Path | None = None) -> dict[str, Card]:
    """Return all cards by slug, in order of the slugs.

    Args:
        folder: Folder of ``*.toml`` files; the package's own by default.

    Raises:
        ConfigError: If a card cannot be used, or two have the same slug or the same arXiv number.
    """
    # A copy: callers may change the dictionary, the cached one must stay.
    return dict(_load_cards(Path(folder) if folder is not None else PACKAGE_FOLDER / "cards"))


@functools.cache
def _load_cards(folder: Path) -> dict[str, Card]:
    cards: dict[str, Card] = {}
    by_paper: dict[str, str] = {}
    for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem):
        card = read_card(path)
        for name, taken in ((card.slug, cards), (card.arxiv, by_paper)):
            # Many cards have no arXiv number; empty ones do not clash.
            if name and name in taken:
                raise ConfigError(
                    f"Two cards share {name!r}: {card.slug!r} and {taken[name] if taken is by_paper else name!r}. Keep one."
                )
        cards[card.slug] = card
        if card.arxiv:
            by_paper[card.arxiv] = card.slug
    return cards
