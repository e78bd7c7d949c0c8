"""YAML read node by node: values with the lines of their keys, and nothing that a small file could blow up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graftwork.core.errors import FileFormatError
from graftwork.data.names import did_you_mean
from graftwork.data.reading.sniff import check_encoding, describe_content

__all__ = ["Lines", "Problem", "key_name", "load_documents", "load_nodes"]

Lines = dict[tuple[Any, ...], int]
"""Line of each key or list item, by its path from the root."""

_MOST_VALUES = 100_000
"""Values of a suite file with all aliases written out; no list of columns is that long."""
_MOST_DIGITS = 100
_TOO_MANY = "repeats lists by aliases, and so holds more than"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a settings file."""

    file: str
    line: int
    """Counted from 1."""
    key: str
    """Path of the key, for example ``datasets[0].targets.stars.kind``."""
    message: str
    """What is wrong, the value, what is allowed, and the nearest match."""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, {self.key}: {self.message}"


def load_nodes(path: Path, what: str = "suite file") -> tuple[Any, Lines, list[Problem]]:
    """Return a YAML file's value, the lines of its keys, and all that makes it unusable (the value is None then): syntax
    faults, duplicated keys, aliases that write out to more than a suite can hold.

    Args:
        path: The file.
        what: What it should be, for messages.

    Raises:
        FileFormatError: If the file does not exist, is empty, or is not UTF-8 text.
    """
    return _load(path, what, several=False)[0]


def load_documents(path: Path, what: str) -> list[tuple[Any, Lines, list[Problem]]]:
    """Return what :func:`load_nodes` returns for every document of a file, parted by ``---``; at least one. Lines are those of the
    whole file.

    Args:
        path: See there.
        what: See there.

    Raises:
        FileFormatError: See there.
    """
    return _load(path, what, several=True)


def _load(path: Path, what: str, *, several: bool) -> list[tuple[Any, Lines, list[Problem]]]:
    if not os.path.isfile(path):
        near = did_you_mean(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise FileFormatError(f"{path} does not exist.{near} Give the path of a {what}.")
    content = describe_content(path)
    if content:
        raise FileFormatError(f"{path} is called {path.suffix} but its content is {content}. A {what} is YAML text.")
    check_encoding(path)
    text = path.read_text(encoding="utf-8-sig")
    # Nodes, not values: only they know their lines. SafeLoader builds plain data and runs nothing.
    found: list[tuple[Any, Lines, list[Problem]]] = []
    lines: Lines = {}
    problems: list[Problem] = []
    loader: Any = None
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node() if several else not found:
            lines, problems = {}, []
            node = loader.get_node() if several else loader.get_single_node()
            if node is None:
                break
            _walk(node, (), lines, problems, path.name, {})
            # Doubled keys would be dropped by the construction, and circles never end.
            found.append((None if problems else loader.construct_document(node), lines, problems))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        reason = " ".join(str(part) for part in (error.context, error.problem) if part)
        said = f"{reason}. Only plain YAML is allowed: check indentation, colons and quotes there."
        return [*found, (None, lines, [Problem(path.name, line, "(YAML)", said)])]
    # Besides its own errors the library lets through those of values that are none: an empty `!!float`, say.
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return [*found, (None, lines, [Problem(path.name, 1, "(YAML)", f"cannot be read: {reason:.300}")])]
    finally:
        if loader is not None:
            loader.dispose()
    if not found:
        needs = " It needs the key 'datasets' with at least one data set." if what == "suite file" else ""
        raise FileFormatError(f"{path} is empty, and no {what}.{needs}")
    return found


def _walk(node: yaml.Node, path: tuple[Any, ...], lines: Lines, problems: list[Problem], file: str, sizes: dict[int, int]) -> int:
    """Note the line of every key.

    Args:
        node: What is looked at.
        path: Keys that lead to it.
        lines: Filled with the line of each path.
        problems: Filled with what cannot be used.
        file: Name of the file, for messages.
        sizes: Values in each node that was seen, aliases written out; 0 while it is open (an alias inside it would be a circle).

    Returns:
        How many values the node holds if all aliases are written out.
    """
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in sizes:  # an alias; walking it again could take exponentially long
        if not sizes[id(node)]:
            problems.append(Problem(file, line, key_name(path), "refers to itself; remove the alias."))
        return sizes[id(node)]
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):  # its text would write out all aliases in it
                problems.append(Problem(file, line, key_name(path), "has a list or a mapping as a key; keys are names."))
                continue
            name = str(key.value)
            if name in seen:
                problems.append(
                    Problem(file, line, key_name((*path, name)), f"given twice, first in line {seen[name]}; keep one of them.")
                )
            seen.setdefault(name, line)
            lines[(*path, name)] = line
            size += _walk(value, (*path, name), lines, problems, file, sizes)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            size += _walk(item, (*path, index), lines, problems, file, sizes)
    elif node.tag.endswith(":int") and len(node.value) > _MOST_DIGITS:  # Python refuses to write down what is much longer
        problems.append(
            Problem(file, line, key_name(path), f"is a number of {len(node.value):,} digits; put quotes around a text.")
        )
    if size > _MOST_VALUES:
        # Said once: whatever holds it is as large.
        if not any(_TOO_MANY in problem.message for problem in problems):
            problems.append(Problem(file, line, key_name(path), f"{_TOO_MANY} {_MOST_VALUES:,} values. Remove the aliases."))
        size = _MOST_VALUES + 1
    sizes[id(node)] = size
    return size


def key_name(path: Iterable[Any]) -> str:
    """Return a path of keys as people write it, for example ``datasets[0].targets``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(document)"
