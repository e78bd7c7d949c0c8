"""The generated reference of what ``import graftwork`` offers: signatures and docstrings of its public names."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator
from typing import Any

import graftwork

__all__ = ["api_page"]

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example|Examples|Attributes):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}\w+):\s*(.*)$")


def api_page() -> str:
    """Return the page: functions first, then classes with their methods, then errors, each in the order of the alphabet."""
    found = {name: getattr(graftwork, name) for name in graftwork.__all__ if not name.startswith("_")}
    functions = {name: item for name, item in found.items() if not inspect.isclass(item)}
    errors = {name: item for name, item in found.items() if inspect.isclass(item) and issubclass(item, Exception)}
    classes = {name: item for name, item in found.items() if inspect.isclass(item) and name not in errors}
    parts = [
        "# Python reference\n\nWhat `import graftwork as gw` offers. Names load on first use. [From Python](../from-python.md) is the guide; this page "
        "is made from the docstrings."
    ]
    parts += ["## Functions", *(_entry(f"gw.{name}", item, "###") for name, item in sorted(functions.items()))]
    parts.append("## Classes")
    for name, item in sorted(classes.items()):
        parts.append(_entry(f"gw.{name}", item, "###"))
        parts += [_member(name, one, member) for one, member in _members(item)]
    parts.append(
        "## Errors\n\nEvery error that graftwork raises on purpose is a `GraftworkError`, and most are a built-in error besides."
    )
    parts += [_error(name, item) for name, item in sorted(errors.items())]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, item: Any, level: str) -> str:
    sections = _sections(inspect.getdoc(item) or "")
    parts = [f"{level} {name}", f"```python\n{name}{_signature(item)}\n```", _text(sections[""].split("\n\n")[0])]
    parts += [_list("Parameters", sections.get("Args") or sections.get("Attributes", ""))]
    if "Returns" in sections:
        parts.append(f"**Returns** {_text(sections['Returns'])}")
    if "Raises" in sections:
        parts.append(_list("Raises", sections["Raises"]))
    return "\n\n".join(part for part in parts if part)


def _error(name: str, item: type) -> str:
    bases = ", ".join(
        f"gw.{base.__name__}" if base.__module__.startswith("graftwork.") else base.__name__ for base in item.__bases__
    )
    return f"### gw.{name}\n\n```python\nclass gw.{name}({bases})\n```\n\n{_text(_first(item))}"


def _member(owner: str, name: str, member: Any) -> str:
    if isinstance(member, property):
        return f"`{owner}.{name}`: {_text(_first(member))}"
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    return f"`{owner}.{name}{_short_signature(function)}`: {_text(_first(function))}"


def _first(item: Any) -> str:
    return (inspect.getdoc(item) or "").split("\n\n")[0]


def _members(item: type) -> Iterator[tuple[str, Any]]:
    """Yield public methods and properties that have a docstring, those of graftwork's base classes, too."""
    found: dict[str, Any] = {}
    for base in reversed(item.__mro__):
        if base.__module__.startswith("graftwork."):
            found |= {name: member for name, member in vars(base).items() if not name.startswith("_")}
    for name, member in sorted(found.items()):
        is_method = inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)
        if is_method and _first(member.__func__ if isinstance(member, classmethod | staticmethod) else member):
            yield name, member


def _signature(item: Any) -> str:
    """Return a signature, one parameter a line where it is long; annotations stand as they are written."""
    try:
        signature = inspect.signature(item)
    except (TypeError, ValueError):
        return "(...)"
    text = str(signature).replace("'", "") if len(signature.parameters) == 0 else _shown(signature)
    if len(text) <= 100:
        return text
    lines = [f"    {_parameter(one)}," for one in _marked(signature)]
    back = _annotation(signature.return_annotation)
    return "(\n" + "\n".join(lines) + "\n)" + (f" -> {back}" if back else "")


def _shown(signature: inspect.Signature) -> str:
    back = _annotation(signature.return_annotation)
    return f"({', '.join(_parameter(one) for one in _marked(signature))})" + (f" -> {back}" if back else "")


def _short_signature(function: Any) -> str:
    names = [one for one in _marked(inspect.signature(function)) if isinstance(one, str) or one.name not in ("self", "cls")]
    return f"({', '.join(one if isinstance(one, str) else _name(one) for one in names)})"


def _marked(signature: inspect.Signature) -> Iterator[inspect.Parameter | str]:
    """Yield the parameters, with the star before those that are given by name only."""
    starred = False
    for one in signature.parameters.values():
        if one.kind is one.VAR_POSITIONAL:
            starred = True
        if one.kind is one.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield one


def _name(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    return f"{stars}{one.name}" + ("" if one.default is one.empty else f"={_default(one.default)}")


def _parameter(one: inspect.Parameter | str) -> str:
    if isinstance(one, str):
        return one
    kind = _annotation(one.annotation)
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    default = "" if one.default is one.empty else f" = {_default(one.default)}" if kind else f"={_default(one.default)}"
    return f"{stars}{one.name}" + (f": {kind}" if kind else "") + default


def _default(value: Any) -> str:
    # An address in memory would differ from build to build.
    text = repr(value)
    return "..." if " at 0x" in text or "object>" in text or "factory" in text else text


def _annotation(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    text = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    return str(text).strip("'\"")


def _sections(doc: str) -> dict[str, str]:
    """Return the parts of a docstring by their headings; what stands before the first is under the empty name."""
    found, name = {"": []}, ""
    for line in doc.splitlines():
        heading = _SECTION.match(line)
        if heading:
            name = heading[1]
            found[name] = []
        else:
            found[name].append(line)
    return {key: inspect.cleandoc("\n".join(lines)) for key, lines in found.items()}


def _list(title: str, text: str) -> str:
    """Return ``name: words`` entries as a list."""
    items: list[list[str]] = []
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if entry and not line.startswith(" "):
            items.append([f"`{entry[1]}`: {entry[2]}"])
        elif items:
            items[-1].append(line.strip())
    lines = [f"- {_text(' '.join(item))}" for item in items]
    return f"**{title}**\n\n" + "\n".join(lines) if lines else ""


def _text(text: str) -> str:
    """Return a docstring's words as Markdown: roles and double backticks become code, everything else stays text."""
    text = re.sub(
        r":\w+:`~?([^`<]*?)(?:\s*<[^`]*>)?`", lambda found: f"`{found[1].split('.')[-1] or found[1]}`", " ".join(text.split())
    )
    parts = re.split(r"(`[^`]+`)", text.replace("``", "`"))
    return "".join(part if part.startswith("`") else html.escape(part, quote=False) for part in parts)
