"""What a YAML file asks of the tokenizer: whose vocabulary the result has, where rows of single tokens come from, and padding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.workflows.mergekit.references import reference_text

__all__ = ["TokenRule", "TokenizerChoice", "read_choice"]

Fault = Callable[[Sequence[Any], str], None]
_KEYS = ("source", "tokens", "pad_to_multiple_of")
_RULE_KEYS = ("source", "force")
_TOKEN_KEYS = ("kind", "model", "token", "token_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRule:
    """Where the row of a token comes from."""

    model: str = ""
    """The model; empty for zeros, or if :attr:`is_default`."""
    token: str | None = None
    """Its token whose row is taken; None takes the token itself, or the row :attr:`row`."""
    row: int | None = None
    force: bool = False
    """Whether models that have the token get this row, too."""
    is_default: bool = False
    """Whether nothing was said of the row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerChoice:
    """The tokenizer of the result."""

    source: str
    """``base``, ``union``, or the model whose tokenizer it is."""
    tokens: Mapping[str, TokenRule] = field(default_factory=dict)
    """Rules for single tokens; those that no vocabulary has are added."""
    multiple: int = 1
    """The number of rows is a multiple of it."""
    key: str = "tokenizer_source"
    """Key that says the source, for messages."""

    @property
    def reference(self) -> str:
        """The model that the source names; empty for ``base`` and ``union``."""
        return "" if self.source in ("base", "union") else self.source


def read_choice(value: Mapping[str, Any], models: Collection[str], fault: Fault) -> TokenizerChoice | None:
    """Read ``tokenizer`` or ``tokenizer_source`` of a document.

    Args:
        value: The document.
        models: References to all models of it.
        fault: Called with the path of a key and what is wrong with it.

    Returns:
        What is asked for; None if nothing is.
    """
    found, old = value.get("tokenizer"), value.get("tokenizer_source")
    if found is None:
        return None if old is None else TokenizerChoice(source=_source(old, ("tokenizer_source",), fault))
    where = ("tokenizer",)
    if old is not None or not isinstance(found, Mapping):
        fault(where, "must be a mapping, and stands in place of tokenizer_source.")
        return None
    _only(found, where, _KEYS, fault)
    multiple = found.get("pad_to_multiple_of")
    if multiple is not None and (type(multiple) is not int or multiple < 1):
        fault((*where, "pad_to_multiple_of"), f"must be a whole number, at least 1; got {multiple!r:.60}.")
        multiple = None
    tokens = found.get("tokens") or {}
    if not isinstance(tokens, Mapping):
        fault((*where, "tokens"), f"must be a mapping from tokens to where their rows come from; got {tokens!r:.60}.")
        tokens = {}
    return TokenizerChoice(
        # As mergekit has it, where nothing is said.
        source=_source(found.get("source") or "union", (*where, "source"), fault),
        tokens={str(token): _rule(rule, (*where, "tokens", str(token)), models, fault) for token, rule in tokens.items()},
        multiple=multiple or 1,
        key="tokenizer.source",
    )


def _source(value: Any, where: Sequence[Any], fault: Fault) -> str:
    try:
        text = reference_text(value)
    except ConfigError as error:
        fault(where, str(error))
        return "base"
    return text.removeprefix("model:") or "base"


def _rule(value: Any, where: tuple[Any, ...], models: Collection[str], fault: Fault) -> TokenRule:
    default = TokenRule(is_default=True)
    if value is not None and not isinstance(value, Mapping):
        fault(where, f"must be a mapping with source and perhaps force; got {value!r:.60}.")
        return default
    rule = value or {}
    _only(rule, where, _RULE_KEYS, fault)
    force, source = rule.get("force") or False, rule.get("source")
    if not isinstance(force, bool):
        fault((*where, "force"), f"must be true or false; got {force!r:.60}.")
        force = False
    if source is None:
        if force:
            fault((*where, "force"), "needs a source, whose row all models get.")
        return default
    place = (*where, "source")
    kind = source.get("kind") if isinstance(source, Mapping) else None
    if kind == "zero" or (source == "zero" and "zero" not in models):
        return TokenRule(force=force)
    if kind is not None and kind != "model_token":
        fault((*place, "kind"), f"must be zero or model_token; got {kind!r:.60}.")
        return default
    token = row = None
    if kind is not None:
        _only(source, place, _TOKEN_KEYS, fault)
        token, row = source.get("token"), source.get("token_id")
        is_row = type(row) is int and row >= 0
        if (token is None) == (row is None) or (row is not None and not is_row) or not isinstance(token, str | None):
            fault(place, "needs a token, a text, or a token_id, a whole number; one of the two.")
            return default
        source = source.get("model")
    try:
        model = reference_text(source)
    except ConfigError as error:
        fault(place, str(error))
        return default
    if model not in models:
        near = did_you_mean(model, list(models))
        fault(place, f"{model!r:.200} is none of the models that are merged.{near}")
    return TokenRule(model=model, token=token, row=row, force=force)


def _only(value: Mapping[str, Any], where: Sequence[Any], known: Sequence[str], fault: Fault) -> None:
    for key in value:
        if key not in known:
            fault((*where, key), f"unknown key.{did_you_mean(str(key), known)} Known keys: {', '.join(known)}.")
