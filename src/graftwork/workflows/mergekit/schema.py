"""The YAML file as records; every fault is listed with its line before any model is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.data.reading.suite_nodes import Lines, Problem, key_name, load_documents
from graftwork.workflows.mergekit.methods import METHODS
from graftwork.workflows.mergekit.references import reference_text
from graftwork.workflows.mergekit.templates import template_fault
from graftwork.workflows.mergekit.tokens import TokenizerChoice, read_choice

__all__ = ["DTYPES", "MergeFile", "OutputSlice", "SourceModel", "read_merge_documents"]

Parameters = Mapping[str, Any]
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
_TOP = (
    "name",
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceModel:
    """One model of a slice."""

    model: str
    layers: tuple[int, int] | None = None
    """Its layers, first and one past the last; None takes all."""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSlice:
    """Layers of the result that come from the same models."""

    sources: tuple[SourceModel, ...]
    base: str = ""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeFile:
    """What a document of a file asks for."""

    path: Path
    method: str
    name: str = ""
    """What other documents of the file call its result; empty if it has no name."""
    slices: tuple[OutputSlice, ...]
    base: str = ""
    parameters: Parameters = field(default_factory=dict)
    """For all slices; those of a slice and of its sources count more."""
    stored: str = ""
    """Stored type of the result as safetensors calls it; empty keeps that of the models."""
    tokenizer: TokenizerChoice | None = None
    """None leaves vocabularies alone; the result has the tokenizer of the base."""
    chat_template: str = ""
    """As :func:`.template_fault` allows it; empty leaves that of the tokenizer."""
    has_slices: bool = False
    """Whether layers are chosen."""
    seed: int = 0
    """Of methods that draw numbers; no key of the file."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of each key, as messages write it."""
    model_lines: Mapping[str, int] = field(default_factory=dict)
    """Line in which each model is named first."""

    @property
    def models(self) -> tuple[str, ...]:
        """All models, the base first."""
        bases = [self.base, *(item.base for item in self.slices)]
        named = [source.model for item in self.slices for source in item.sources]
        return tuple(dict.fromkeys(name for name in (*bases, *named) if name))

    @property
    def references(self) -> tuple[str, ...]:
        """All that must be there before this document can be merged: its models, and the one whose tokenizer it takes."""
        chosen = self.tokenizer.reference if self.tokenizer else ""
        return tuple(dict.fromkeys((*self.models, *([chosen] if chosen else []))))


def read_merge_documents(path: str | Path) -> list[MergeFile]:
    """Read and check a YAML file of mergekit: one document, or several that are parted by ``---``.

    Returns:
        The documents as they stand in the file; empty ones are left out.

    Raises:
        FileFormatError: If it cannot be read as text.
        ConfigError: With all faults: file, line, key, value, what is allowed.
    """
    path = Path(path)
    found: list[MergeFile] = []
    problems: list[Problem] = []
    loaded = load_documents(path, "merge configuration")
    for value, lines, faults in loaded:
        if faults:
            problems += faults
        elif value is not None or len(loaded) == 1:
            reader = _Reader(path.name, lines, problems)
            document = reader.document(path, value)
            found += [document] if document is not None else []
    if problems or not found:
        raise ConfigError(f"{path} cannot be used.", [str(problem) for problem in problems] or [f"{path.name} is empty."])
    return found


class _Reader:
    def __init__(self, file: str, lines: Lines, problems: list[Problem]) -> None:
        self.file, self.lines, self.problems = file, lines, problems
        self.named: dict[str, int] = {}

    def fault(self, where: Sequence[Any], message: str) -> None:
        known = next((self.lines[tuple(where[:end])] for end in range(len(where), -1, -1) if tuple(where[:end]) in self.lines), 1)
        self.problems.append(Problem(self.file, known, key_name(where), message))

    def document(self, path: Path, value: Any) -> MergeFile | None:
        if not isinstance(value, Mapping):
            self.fault((), f"must be a mapping with merge_method and models or slices; got {type(value).__name__}.")
            return None
        for key in value:
            if key not in _TOP:
                self.fault((key,), f"unknown key.{did_you_mean(str(key), _TOP)} Known keys: {', '.join(_TOP)}.")
        method = value.get("merge_method")
        if not isinstance(method, str) or method not in METHODS:
            self._method_fault(value, method)
        content, where = self._module(value)
        given = [key for key in ("models", "slices") if content.get(key)]
        if len(given) != 1:
            self.fault(where, "needs exactly one of models and slices, with at least one entry.")
            return None
        name = value.get("name")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            self.fault(("name",), f"must be a name, by which other documents call this one; got {name!r:.60}.")
            name = ""
        base = self._text(value, "base_model")
        slices = self._models(content, where) if given == ["models"] else self._slices(content, where)
        stored = self._dtype(value)
        parameters = {**self._parameters(value, ()), **(self._parameters(content, where) if where else {})}
        return MergeFile(
            path=path,
            method=str(method),
            name=name or "",
            slices=slices,
            base=base,
            parameters=parameters,
            stored=stored,
            tokenizer=self._tokenizer(value, base, slices),
            chat_template=self._template(value),
            has_slices=given == ["slices"],
            lines={key_name(place): line for place, line in self.lines.items()},
            model_lines=self.named,
        )

    def _method_fault(self, value: Mapping[str, Any], method: Any) -> None:
        if "merge_method" not in value:
            self.fault((), f"the key merge_method is missing. Methods: {', '.join(METHODS)}.")
        elif not isinstance(method, str):
            self.fault(("merge_method",), f"must be the name of a method; got {method!r:.60}. Methods: {', '.join(METHODS)}.")
        else:
            near = did_you_mean(method, METHODS)
            self.fault(("merge_method",), f"unknown method {method!r:.60}.{near} Methods: {', '.join(METHODS)}.")

    def _module(self, value: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Any, ...]]:
        modules = value.get("modules")
        if not modules:
            return value, ()
        if value.get("models") or value.get("slices"):
            self.fault(("modules",), "stands beside models or slices; keep one of them.")
        if not isinstance(modules, Mapping) or len(modules) != 1 or not isinstance(next(iter(modules.values())), Mapping):
            self.fault(("modules",), "must hold one module; models of several parts are merged one part at a time.")
            return {}, ("modules",)
        name, content = next(iter(modules.items()))
        return content, ("modules", str(name))

    def _models(self, value: Mapping[str, Any], where: tuple[Any, ...]) -> tuple[OutputSlice, ...]:
        return (OutputSlice(sources=self._sources(value["models"], (*where, "models"), ranged=False)),)

    def _slices(self, value: Mapping[str, Any], where: tuple[Any, ...]) -> tuple[OutputSlice, ...]:
        found = []
        if not isinstance(value["slices"], list):
            self.fault((*where, "slices"), "must be a list.")
            return ()
        for index, item in enumerate(value["slices"]):
            place = (*where, "slices", index)
            if not isinstance(item, Mapping) or not item.get("sources"):
                self.fault(place, "must be a mapping with a list of sources.")
                continue
            self._only(item, place, ("sources", "base_model", "parameters", "residual_weight"))
            if item.get("residual_weight") is not None:
                self.fault((*place, "residual_weight"), "is not supported.")
            sources = self._sources(item["sources"], (*place, "sources"), ranged=True)
            lengths = {source.layers[1] - source.layers[0] for source in sources if source.layers}
            if len(lengths) > 1:
                self.fault(
                    (*place, "sources"),
                    f"take different numbers of layers ({', '.join(map(str, sorted(lengths)))}); they must be equal.",
                )
            found.append(
                OutputSlice(sources=sources, base=self._text(item, "base_model", place), parameters=self._parameters(item, place))
            )
        return tuple(found)

    def _sources(self, items: Any, where: tuple[Any, ...], *, ranged: bool) -> tuple[SourceModel, ...]:
        found: list[SourceModel] = []
        if not isinstance(items, list):
            self.fault(where, "must be a list.")
            return ()
        for index, item in enumerate(items):
            place = (*where, index)
            if not isinstance(item, Mapping) or not item.get("model"):
                self.fault(place, "must be a mapping with the key model.")
                continue
            self._only(item, place, ("model", "parameters", "layer_range") if ranged else ("model", "parameters"))
            layers = self._layers(item, place) if ranged else None
            found.append(
                SourceModel(model=self._text(item, "model", place), layers=layers, parameters=self._parameters(item, place))
            )
        return tuple(found)

    def _layers(self, item: Mapping[str, Any], place: tuple[Any, ...]) -> tuple[int, int] | None:
        value = item.get("layer_range")
        is_pair = isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)
        if not is_pair or not 0 <= value[0] < value[1]:  # type: ignore[index]
            self.fault(
                (*place, "layer_range"), f"must be two whole numbers, the first layer and one past the last; got {value!r:.60}."
            )
            return None
        return value[0], value[1]  # type: ignore[index]

    def _text(self, value: Mapping[str, Any], key: str, where: tuple[Any, ...] = ()) -> str:
        found = value.get(key)
        if found is None:
            return ""
        try:
            text = reference_text(found)
        except ConfigError as error:
            self.fault((*where, key), str(error))
            return ""
        self.named.setdefault(text, self.lines.get((*where, key), 1))
        return text

    def _parameters(self, value: Mapping[str, Any], where: tuple[Any, ...]) -> Parameters:
        found = value.get("parameters") or {}
        if not isinstance(found, Mapping):
            self.fault((*where, "parameters"), "must be a mapping.")
            return {}
        return {str(key): item for key, item in found.items()}

    def _dtype(self, value: Mapping[str, Any]) -> str:
        for key in ("dtype", "out_dtype"):
            name = str(value.get(key) or "").removeprefix("torch.")
            if name and name not in DTYPES:
                near = did_you_mean(name, DTYPES)
                self.fault((key,), f"must be one of {', '.join(DTYPES)}; got {value[key]!r:.60}.{near}")
        chosen = str(value.get("out_dtype") or value.get("dtype") or "").removeprefix("torch.")
        return DTYPES.get(chosen, "")

    def _tokenizer(self, value: Mapping[str, Any], base: str, slices: Sequence[OutputSlice]) -> TokenizerChoice | None:
        sources = (source.model for item in slices for source in item.sources)
        found = read_choice(value, {base, *(item.base for item in slices), *sources} - {""}, self.fault)
        if found is not None:
            self.named.setdefault(found.source, self.lines.get(tuple(found.key.split(".")), 1))
        return found

    def _template(self, value: Mapping[str, Any]) -> str:
        wanted = value.get("chat_template")
        if not wanted:
            return ""
        message = template_fault(wanted)
        if message:
            self.fault(("chat_template",), message)
        return "" if message else str(wanted)

    def _only(self, value: Mapping[str, Any], where: tuple[Any, ...], known: Sequence[str]) -> None:
        for key in value:
            if key not in known:
                self.fault((*where, key), f"unknown key.{did_you_mean(str(key), known)} Known keys: {', '.join(known)}.")
