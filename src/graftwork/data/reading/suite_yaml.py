"""``suite.yaml``: several data sets with their own targets, checked as a whole before anything runs. No torch, pandas or NumPy
here.

Example::

    name: shop
    mixing: temperature        # proportional | uniform | balanced | round-robin | temperature
    temperature: 2
    datasets:
      - name: web
        source: web.csv        # relative to this file
        group: user
        targets:
          stars: {kind: ordinal, metric: quadratic_kappa}
          sold: {class_weight: balanced}
          price:               # kind inferred
      - name: phone
        source: phone.parquet
        domain: store
        ignore: [row]
        targets: [stars]       # the same name: one shared head
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.data.reading.suite_nodes import Problem, load_nodes
from graftwork.data.reading.suite_schema import MODALITIES, check_document

__all__ = ["DatasetEntry", "Problem", "SuiteFile", "TargetEntry", "read_suite_yaml", "validate_suite_yaml"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetEntry:
    """One target of one data set."""

    name: str
    columns: tuple[str, ...]
    kind: str = ""
    metric: str = ""
    class_weight: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetEntry:
    """One data set."""

    name: str
    source: Path
    targets: tuple[TargetEntry, ...]
    labels: Path | None = None
    image_column: str | None = None
    """Column of the labels that names the pictures."""
    text: tuple[str, ...] = ()
    group: str | None = None
    domain: str = ""
    features: tuple[str, ...] | None = None
    categories: tuple[str, ...] = ()
    histories: Mapping[str, str] = field(default_factory=dict)
    """``{history: item}``."""
    ignore: tuple[str, ...] = ()
    credit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteFile:
    """A checked suite file."""

    path: Path
    name: str
    kinds: tuple[str, ...]
    """Kinds of the inputs: ``table``, ``text``, ``image``, in this order."""
    mixing: str | float
    datasets: tuple[DatasetEntry, ...]
    image_size: int | None = None
    seed: int | None = None
    missing: tuple[str, ...] | None = None
    split_labels: str | None = None
    strict: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def validate_suite_yaml(path: str | Path) -> list[Problem]:
    """Return every problem of a suite file: unknown and misspelt keys, wrong values, missing files and columns, with line
    numbers.

    Args:
        path: The YAML file.

    Returns:
        Problems in the order of the file; empty if it can be used.

    Raises:
        FileFormatError: If the file does not exist or is not UTF-8 text.
    """
    value, lines, problems = load_nodes(Path(path))
    return problems if problems else check_document(Path(path), value, lines)


def read_suite_yaml(path: str | Path, *, needs_targets: bool = True) -> SuiteFile:
    """Read a suite file.

    Args:
        path: The YAML file.
        needs_targets: Whether a file in which no data set has a target is refused.

    Raises:
        ConfigError: With all problems at once, if there are any.
        FileFormatError: If the file does not exist or is not text.
    """
    path = Path(path)
    value, lines, problems = load_nodes(path)
    problems = problems or check_document(path, value, lines, needs_targets=needs_targets)
    if problems:
        raise ConfigError(
            f"{path} has {len(problems)} problem{'s' if len(problems) > 1 else ''}.", [str(problem) for problem in problems]
        )
    datasets = tuple(_dataset(entry, path.parent, index) for index, entry in enumerate(value["datasets"], 1))
    mixing: str | float = value.get("mixing", "proportional")
    # A number in the place of a policy is a temperature.
    if mixing == "temperature" or not isinstance(mixing, str):
        mixing = float(value.get("temperature", 2.0)) if isinstance(mixing, str) else float(mixing)
    return SuiteFile(
        path=path,
        # `suite.yaml` says nothing; the folder's name does.
        name=str(value.get("name", path.stem if path.stem != "suite" else path.resolve().parent.name)),
        kinds=_kinds(value.get("modality"), datasets),
        mixing=mixing,
        datasets=datasets,
        image_size=value.get("image_size"),
        seed=value.get("seed"),
        missing=_texts(value["missing"]) if value.get("missing") is not None else None,
        split_labels=None if value.get("split_labels") is None else str(value["split_labels"]),
        strict=bool(value.get("strict", False)),
    )


def _kinds(modality: Any, datasets: tuple[DatasetEntry, ...]) -> tuple[str, ...]:
    """Return the kinds of input that the file asks for, or all that its data sets have."""
    if modality is not None:
        asked = _texts(modality)
        return tuple(kind for kind in MODALITIES if kind in asked)
    has = {
        # A folder of pictures has further columns only where they are named.
        "table": any(entry.features if entry.source.is_dir() else entry.features != () for entry in datasets),
        "text": any(entry.text for entry in datasets),
        "image": any(entry.source.is_dir() or entry.image_column is not None for entry in datasets),
    }
    return tuple(kind for kind in MODALITIES if has[kind])


def _texts(value: Any) -> tuple[str, ...]:
    return () if value is None else (str(value),) if not isinstance(value, list) else tuple(map(str, value))


def _dataset(entry: Mapping[str, Any], folder: Path, number: int) -> DatasetEntry:
    source = folder / str(entry["source"])
    name = str(entry.get("name", source.stem if source.stem else f"dataset {number}"))
    return DatasetEntry(
        name=name,
        source=source,
        targets=tuple(_target(key, settings) for key, settings in _target_items(entry["targets"])),
        labels=folder / str(entry["labels"]) if entry.get("labels") is not None else None,
        image_column=None if entry.get("image_column") is None else str(entry["image_column"]),
        text=_texts(entry.get("text")),
        group=None if entry.get("group") is None else str(entry["group"]),
        domain=str(entry.get("domain", name)),
        features=_texts(entry["features"]) if entry.get("features") is not None else None,
        categories=_texts(entry.get("categories")),
        histories={str(name): str(item) for name, item in (entry.get("histories") or {}).items()},
        ignore=_texts(entry.get("ignore")),
        credit=str(entry.get("credit", "")),
    )


def _target_items(targets: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(targets, Mapping):
        return [(str(key), {"kind": value} if isinstance(value, str) else value or {}) for key, value in targets.items()]
    return [(str(name), {}) for name in ([targets] if isinstance(targets, str) else targets)]


def _target(name: str, settings: Mapping[str, Any]) -> TargetEntry:
    columns = _texts(settings.get("columns"))
    task, separator, rest = name.partition("=")
    if not columns and separator:
        name, columns = task.strip(), tuple(part.strip() for part in rest.split("+"))
    return TargetEntry(
        name=name,
        columns=columns or (name,),
        kind=str(settings.get("kind", "")),
        metric=str(settings.get("metric", "")),
        class_weight=str(settings.get("class_weight", "")),
        classes=_texts(settings.get("classes")),
    )
