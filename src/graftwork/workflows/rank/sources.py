"""Which sources a user means: names of backbones, folders of models, own runs; found and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.files import read_json
from graftwork.core.model_folder import INDEX_NAME, MODEL_NAME, said_of_pickles
from graftwork.data.suite import Suite
from graftwork.export.model_folder import FORMAT
from graftwork.nn.backbones.catalog import list_backbones, modality_of, split_names

__all__ = ["RankSource", "find_sources", "knows_rows"]

_PICTURE_KEYS = ("image_size", "num_channels", "patch_size")
"""Of a config.json of transformers that describes a model of pictures."""
Way = Literal["catalog", "untrained", "transformers", "timm", "run"]


@dataclass(frozen=True, slots=True)
class RankSource:
    """A source that can be loaded."""

    name: str
    way: Way
    kind: str
    """Kind of input that it reads; empty for own runs, which say it themselves."""
    place: str
    """Name for the catalogue, or folder."""
    licence: str = ""
    given: tuple[str, ...] = ()
    """Of an own run: all names that the user has given, among which its backbone may be."""

    @property
    def is_control(self) -> bool:
        """Whether it is an untrained trunk."""
        return self.way == "untrained"


def find_sources(asked: str | Sequence[str], kinds: Sequence[str]) -> tuple[list[RankSource], list[dict[str, str]]]:
    """Return the sources, an untrained trunk of each kind that they read at the end, and what was passed over, with the reason.

    Args:
        asked: ``"all"`` (every pretrained backbone that is installed), names of backbones, folders of models or of several, separated
            by commas.
        kinds: Kinds of the suite's inputs.

    Raises:
        ConfigError: If a name is unknown or reads another kind of data, a folder holds no model, or there is no source at all.
    """
    names = asked if not isinstance(asked, str) else _split(asked)
    found: list[RankSource] = []
    passed: list[dict[str, str]] = []
    for name in names:
        if name == "all":
            found += _installed(kinds, passed)
        elif Path(name).is_dir():
            found += [replace(source, given=tuple(names)) for source in _in_folder(Path(name), passed)]
        else:
            found.append(_named(name, kinds))
    found = list({source.name: source for source in found}.values())
    wrong = [source for source in found if source.kind and source.kind not in kinds]
    if wrong:
        raise ConfigError(
            f"The source {wrong[0].name!r} reads {wrong[0].kind} data, but the suite's inputs are of the kind {', '.join(kinds)}. "
            "See: graftwork backbones"
        )
    if not any(not source.is_control for source in found):
        raise ConfigError(_none_found(kinds, passed))
    read = {source.kind for source in found if source.kind} or set(kinds)
    known = {source.name for source in found}
    found += [
        RankSource(name, "untrained", kind, "scratch", "Apache-2.0")
        for kind in kinds
        if kind in read and (name := "scratch" if len(kinds) == 1 else f"scratch ({kind})") not in known
    ]
    return found, passed


def _split(asked: str) -> list[str]:
    # A folder may have commas in its name; names of backbones are split as everywhere.
    return [asked] if Path(asked).is_dir() else [part for name in split_names(asked) for part in _parts(name)]


def _parts(name: str) -> list[str]:
    return [name] if Path(name.partition(":")[2] or name).exists() else [part.strip() for part in name.split(",") if part.strip()]


def _installed(kinds: Sequence[str], passed: list[dict[str, str]]) -> list[RankSource]:
    found = []
    for kind in kinds:
        for info in list_backbones(kind):
            # Names with a colon stand for families: which member is meant, only the user knows.
            if not info.pretrained or ":" in info.name:
                continue
            if info.available:
                found.append(RankSource(info.name, "catalog", kind, info.name, info.licence))
            else:
                passed.append({"name": info.name, "reason": f"not installed: {info.install}"})
    return found


def _named(name: str, kinds: Sequence[str]) -> RankSource:
    if name == "scratch":
        return RankSource("scratch", "untrained", kinds[0], "scratch", "Apache-2.0")
    if "/" in name and ":" not in name:
        raise ConfigError(f"There is no folder {name}. Give a folder with a model, or a name as in: graftwork backbones")
    kind = modality_of(name)
    licence = next((info.licence for info in list_backbones(kind) if info.name == name.partition("@")[0]), "see its model card")
    return RankSource(name, "catalog", kind, name, licence)


def _in_folder(folder: Path, passed: list[dict[str, str]]) -> list[RankSource]:
    """Return the model in a folder, or those in its sub-folders."""
    own = _model_in(folder)
    if own is not None:
        return [own]
    found = []
    for part in sorted(item for item in folder.iterdir() if item.is_dir()):
        try:
            source = _model_in(part)
        except GraftworkError as error:
            passed.append({"name": str(part), "reason": str(error)})
            continue
        if source is not None:
            found.append(source)
    if not found:
        raise ConfigError(
            f"{folder} holds no model, nor do its sub-folders. A model is a run folder of graftwork, or a folder with config.json and "
            "model.safetensors as transformers and timm save them."
        )
    return found


def _model_in(folder: Path) -> RankSource | None:
    config = next((path for path in (folder / "model" / "config.json", folder / "config.json") if path.is_file()), None)
    if config is None:
        return None
    content: Any = read_json(config)
    if not isinstance(content, dict):
        raise FileFormatError(f"{config} holds no object; it is no description of a model.")
    if content.get("format") == FORMAT:
        # Finalists that were not chosen are kept for predictions alone.
        if not (config.parent / MODEL_NAME).is_file():
            raise ConfigError(_unreadable(folder, f"{folder} holds the graph of its model and no {MODEL_NAME}"))
        return RankSource(str(folder), "run", "", str(config.parent), "as the run says")
    if str(content.get("format", "")).startswith("graftwork-") and isinstance(content.get("plan"), dict):
        raise ConfigError(_unreadable(folder, f"The model of {folder} is {content['plan'].get('name')!r}, which is no network"))
    is_whole = any((folder / name).is_file() for name in (MODEL_NAME, INDEX_NAME))
    if {"model_type", "architecture"} & content.keys() and not is_whole and (said := said_of_pickles(folder)):
        raise ConfigError(f"{folder} holds no {MODEL_NAME}.{said}")
    if "model_type" in content:
        # Models of pictures know no words; those of both keep their keys one level down.
        is_image = "vocab_size" not in content and any(key in content for key in _PICTURE_KEYS)
        kind = "image" if is_image else "text"
        return RankSource(str(folder), "transformers", kind, str(config.parent), "see its model card")
    if "architecture" in content:
        return RankSource(str(folder), "timm", "image", str(config.parent), "see its model card")
    return None


def _unreadable(folder: Path, why: str) -> str:
    """Say that the model of a run has no features to be read, and what can be taken in its place."""
    return (
        f"{why}, so it cannot be asked for features. What it predicts can teach: graftwork predict {folder} DATA --probabilities "
        "--out teacher.csv, then graftwork distill with --teacher teacher.csv."
    )


def knows_rows(source: RankSource, suite: Suite) -> str:
    """Say it if a run of graftwork has learned from the data that it is judged on; empty if not, or nothing is known.

    Args:
        source: The source.
        suite: The user's data.
    """
    try:
        inputs = dict(read_json(Path(source.place) / "lineage.json")["inputs"]) if source.way == "run" else {}
    except (GraftworkError, OSError, KeyError, TypeError, ValueError):
        return ""
    if not set(inputs.values()) & {*suite.sources.values(), suite.fingerprint()}:
        return ""
    return (
        f"{source.name} learned from this data, so it knows labels of rows that it is judged on: its scores are too high beside those of "
        "other sources."
    )


def _none_found(kinds: Sequence[str], passed: Sequence[dict[str, str]]) -> str:
    what = f"There is no source for inputs of the kind {', '.join(kinds)}."
    missing = " ".join(f"{item['name']}: {item['reason']}." for item in passed)
    return f"{what} {missing} Name folders of models or of your own runs with --sources.".replace("  ", " ")
