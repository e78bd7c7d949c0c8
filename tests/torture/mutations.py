"""Damaged copies of files: bytes that flip, end early, come twice; values of wrong types, huge, deep or given twice.

Every mutation draws from the generator that it is given and from nothing else, so that a seed gives the same files again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from .graphs import damage_graph, damage_parquet
from .pictures import LABELS, damage_picture

__all__ = ["LANGUAGES", "mutated"]

Mutation = Callable[[random.Random, bytes], bytes]

_DEEP = 5_000
_DIGITS = "7" * 6_000


def _flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    start = rng.randrange(len(changed) + 1)
    for index in range(start, min(len(changed), start + rng.choice((1, 4, 16)))):
        changed[index] = rng.choice((0, 255, 127, 128, 10, 34, 44, 123, 125, rng.randrange(256)))
    return bytes(changed)


def _truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.choice((0, 1, 8, rng.randrange(len(content) + 1), max(0, len(content) - 1)))]


def _splice(rng: random.Random, content: bytes) -> bytes:
    """Put one part of the file in the place of another, or between two."""
    start, length = rng.randrange(len(content) + 1), rng.choice((1, 8, 64, 512))
    part, place = content[start : start + length], rng.randrange(len(content) + 1)
    return content[:place] + part + content[place + rng.choice((0, len(part))) :]


def _remove(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 4, 32, 256)) :]


def _insert(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content) + 1)
    added = rng.choice(
        (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"[" * _DEEP, b"{" * _DEEP, _DIGITS.encode(), b"\x1b[31m")
    )
    return content[:place] + added + content[place:]


def _repeat(rng: random.Random, content: bytes) -> bytes:
    return content * rng.choice((2, 3)) if len(content) < 1_000_000 else content


_BYTES: tuple[Mutation, ...] = (_flip_bits, _flip_bits, _set_bytes, _truncate, _splice, _remove, _insert, _repeat)


def _odd_json(rng: random.Random) -> str:
    """Return the text of a JSON value that hardly anybody expects."""
    deep = rng.choice((20, 200, _DEEP))
    return rng.choice(
        (
            "null", "true", "false", "0", "-1", "1", "1e999", "-1e999", "NaN", "Infinity", "1e-320", "0.5", "-0", "18446744073709551616",
            "9223372036854775807", "1" + "0" * 400, _DIGITS, '""', '"x"', '"' + "y" * 5_000 + '"', '"\\u0000"', '"\\ud800"', '"../../x"',
            '"/dev/zero"', '"os:system"', "[]", "{}", "[null]", "[[]]", '[1, "a", null]', '{"": 0}', '{"a": {"b": []}}', '"\\u001b[31m"',
            "[" * deep + "]" * deep, '{"a":' * deep + "0" + "}" * deep, "[" + "0," * 3_000 + "0]",
        )
    )  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _paths(item, (*path, key))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


class _Text(str):
    """Text that goes into the JSON as it is."""


def _dump(value: Any) -> str:
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value)


def _mutate_value(rng: random.Random, value: Any) -> Any:
    """Change one place of a JSON value."""
    path = _drawn_path(rng, value)
    if not path:
        return _Text(_odd_json(rng))
    parent, key = _at(value, path[:-1]), path[-1]
    way = rng.randrange(7)
    if way <= 2 or (isinstance(parent, list) and way == 5):
        parent[key] = _Text(_odd_json(rng))
    elif way == 3:
        del parent[key]
    elif way == 4:
        parent[key] = _at(value, _drawn_path(rng, value))
        # A value that holds itself cannot be written.
        parent[key] = json.loads(_dump(parent[key])) if not _holds(parent[key], parent) else None
    elif way == 5:
        # One key twice: the second value may be another one.
        second = _dump(parent[key]) if rng.random() < 0.3 else _odd_json(rng)
        parent[key] = _Text(f"{_dump(parent[key])}, {json.dumps(str(key))}: {second}")
    elif isinstance(parent, dict):
        parent[str(key) + rng.choice(("x", "", " ", "\0"))] = parent.pop(key)
    else:
        parent.insert(key, parent[key])
    return value


def _drawn_path(rng: random.Random, value: Any) -> tuple[Any, ...]:
    """Return a way to some place; first a depth is drawn, so that long lists of numbers do not hide what is above them."""
    path: tuple[Any, ...] = ()
    stop = rng.choice((0.05, 0.15, 0.4))
    while isinstance(value, dict | list) and value and (not path or rng.random() > stop):
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        path, value = (*path, key), value[key]
    return path


def _holds(value: Any, wanted: Any) -> bool:
    if value is wanted:
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds(item, wanted) for item in items)


def _json_values(rng: random.Random, content: bytes) -> bytes:
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        try:
            value = _mutate_value(rng, value)
            value = json.loads(_dump(value)) if rng.random() < 0.2 else value
        except (ValueError, RecursionError, KeyError, IndexError, TypeError):
            break  # what is there now is no JSON any more
    return _dump(value).encode("utf-8", "surrogatepass")


def _json_line(rng: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    index = rng.randrange(max(1, len(lines) - 1))
    way = rng.randrange(4)
    if way == 0 and lines[index].strip():
        lines[index] = _json_values(rng, lines[index])
    elif way == 1:
        lines[index] = _odd_json(rng).encode()
    elif way == 2:
        lines.insert(index, lines[rng.randrange(len(lines))])
    else:
        lines[index] = lines[index][: rng.randrange(len(lines[index]) + 1)]
    return b"\n".join(lines)


def _odd_scalar(rng: random.Random) -> str:
    """Return a value as YAML and TOML may hold it, or as they must not."""
    return rng.choice(
        (
            "", "null", "~", "true", "-1", "0", "1e999", ".nan", "nan", "inf", "-.inf", _DIGITS, "0x" + "f" * 6_000, "1_0", "2020-13-45", "2020-01-01",
            "2020-01-01T25:00:00Z", "12:30:45", "1:" * 3_000 + "1", '""', "'x'", '"\\u0000"', "[]", "{}", "[[1, 2], 3]", "{a = 1}", "{a: 1}", "&a [*a]", "*nobody",
            "!!python/object/apply:os.system ['touch x']", "!!binary aGk=", "!!set {a, b}", "!!int x", "!!float ''", "!!timestamp x", "!odd x", "<<", "? x", "- x",
            "[" * _DEEP, "[" * 300 + "]" * 300, "{a: " * 300 + "1" + "}" * 300, "|", ">-", "'''x", '"""x', '"os:system"', '"' + "z" * 5_000 + '"', "../../../etc/passwd",
            "/dev/zero", "0b2", "0o9", "1979-05-27T00:32:00.999999-07:00", "07:32:00", "!!merge x", "=", "\x1b[31m",
        )
    )  # fmt: skip


def _line_values(sign: str) -> Mutation:
    """Return a mutation that gives one line another value, key or place."""

    def mutation(rng: random.Random, content: bytes) -> bytes:
        lines = content.decode("utf-8", "replace").split("\n")
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            index = rng.randrange(len(lines))
            key, found, value = lines[index].partition(sign)
            way = rng.randrange(8)
            if way <= 3 and found:
                lines[index] = f"{key}{sign} {_odd_scalar(rng)}"
            elif way == 4:
                lines.insert(index, lines[rng.randrange(len(lines))])
            elif way == 5:
                del lines[index]
                lines = lines or [""]
            elif way == 6 and found:
                lines[index] = f"{key}{rng.choice(('x', '', ' '))}{sign}{value}"
            else:
                lines[index] = rng.choice(("  ", "\t", "- ", "# ", "    - ")) + lines[index].lstrip()
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    return mutation


def _yaml_bomb(rng: random.Random, content: bytes) -> bytes:
    """Put a list in front that is small as text and has more entries than any memory, and use it for one key."""
    width, levels = rng.choice((2, 10)), rng.choice((5, 30))
    bomb = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels))]
    lines = content.decode("utf-8", "replace").split("\n")
    index = rng.randrange(len(lines))
    key, found, _ = lines[index].partition(":")
    lines[index] = f"{key}: *a{levels - 1}" if found else lines[index]
    if rng.random() < 0.3:
        bomb = ["a0: &a0 {<<: {x: 1}, y: 2}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}" for n in range(1, levels))]
    return "\n".join([*bomb, *lines]).encode()


def _cells(separator: bytes) -> Mutation:
    """Return a mutation that changes cells and rows of a table in text."""

    def mutation(rng: random.Random, content: bytes) -> bytes:
        lines = content.split(b"\n")
        index = rng.randrange(max(1, len(lines) - 1))
        cells = lines[index].split(separator)
        way = rng.randrange(6)
        if way <= 1:
            odd = (
                "",
                "nan",
                "inf",
                "-inf",
                "1e999",
                _DIGITS,
                "x" * 200_000,
                '"',
                '"a\nb"',
                "\0",
                "é",
                "2020-13-45",
                "=1+1",
                "a\rb",
                "\x1b[31m",
                "[" * _DEEP,
            )
            cells[rng.randrange(len(cells))] = rng.choice(odd).encode()
        elif way == 2:
            cells.append(rng.choice(cells))
        elif way == 3:
            del cells[rng.randrange(len(cells))]
        elif way == 4:
            lines = [lines[0], *rng.sample(lines[1:], rng.randrange(len(lines)))]
            cells = lines[0].split(separator)
            index = 0
        else:
            cells[0] = cells[-1]
        lines[index] = separator.join(cells)
        return b"\n".join(lines)

    return mutation


def _named_pictures(rng: random.Random, content: bytes) -> bytes:
    """Let some rows of a table of labels name other files."""
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 1, 3))):
        index = rng.randrange(1, max(2, len(lines) - 1))
        _, comma, rest = lines[index].partition(b",")
        lines[index] = rng.choice(LABELS).encode("utf-8", "surrogatepass") + comma + rest
    return b"\n".join(lines)


LANGUAGES: Mapping[str, tuple[Mutation, ...]] = {
    "bytes": _BYTES,
    "json": (*[_json_values] * 12, *_BYTES),
    "jsonl": (*[_json_line] * 12, *_BYTES),
    "yaml": (*[_line_values(":")] * 12, _yaml_bomb, _yaml_bomb, *_BYTES),
    "toml": (*[_line_values("=")] * 12, *_BYTES),
    "csv": (*[_cells(b",")] * 8, *_BYTES),
    "labels": (*[_named_pictures] * 12, *[_cells(b",")] * 4, *_BYTES),
    "picture": (*[damage_picture] * 8, *_BYTES),
    "onnx": (*[damage_graph] * 16, *_BYTES),
    "parquet": (*[damage_parquet] * 16, *_BYTES),
}
"""Mutations by what a file is written in; those that come more often are there more often."""


def mutated(rng: random.Random, content: bytes, language: str) -> bytes:
    """Return a damaged copy.

    Args:
        rng: Decides what is damaged.
        content: The file, whole.
        language: A key of :data:`LANGUAGES`.
    """
    return rng.choice(LANGUAGES[language])(rng, content)
