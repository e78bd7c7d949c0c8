"""What a server's clients do wrong, each a coroutine that returns what it sent and what it got."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .pictures import bomb
from .questions import Question

__all__ = ["WAYS", "bombs", "proper", "read_answer", "request"]

Questions = Sequence[Question]
Way = Callable[[random.Random, asyncio.StreamReader, asyncio.StreamWriter, Questions], Awaitable[tuple[bytes, bytes]]]

_NASTY = (
    *(b"\r\n", b"\0", b":", b"\xff", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n"),
    *(b"Host: evil.org\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"/../", b"%00", b"HTTP/9.9"),
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    *(None, True, -0.0, 1e308, -1e308, 10**400, "", "nan", "=1", "\ud800", "\0", [], {}, [[]], {"a": {}}, "x" * 200_000),
    *([0] * 2_000, {"rows": []}, "2021-13-45", "1e999", -(2**63)),
)


def request(
    body: bytes, *, path: str = "/predict", close: bool = True, host: str = "127.0.0.1", kind: str = "application/json"
) -> bytes:
    """Return a request with a body."""
    end = "Connection: close\r\n" if close else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{end}\r\n"
    return head.encode() + body


def proper(rng: random.Random, questions: Questions) -> bytes:
    """Return a request that has an answer."""
    question = rng.choice(questions)
    return request(question.body, path=question.path)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _rest(reader: asyncio.StreamReader) -> bytes:
    return await reader.read(100_000)


async def silence(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send nothing."""
    return b"", await _rest(reader)


async def half_a_request(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send a part of a request and wait."""
    sent = proper(rng, questions)
    sent = sent[: rng.randrange(len(sent))]
    writer.write(sent)
    return sent, await _rest(reader)


async def trickle(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send a request byte by byte."""
    sent = proper(rng, questions)
    for byte in sent:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)
    return sent, await _rest(reader)


async def leave_early(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Ask, and leave without the answer."""
    sent = proper(rng, questions)
    writer.write(sent)
    await asyncio.sleep(rng.random() * 0.01)
    writer.transport.abort()
    return sent, b""


async def never_read(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Ask for long answers without taking any."""
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(2_000):
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await writer.drain()
    await asyncio.sleep(8)
    return b"", b""


async def damaged_http(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send a request with bytes that were changed, left out or put in."""
    sent = bytearray(proper(rng, questions))
    for _ in range(rng.randint(1, 4)):
        # The head mostly: the body has its own attack.
        at = min(len(sent) - 1, int(rng.expovariate(1 / 60)))
        way = rng.randrange(3)
        if way == 0:
            sent[at] = rng.randrange(256)
        elif way == 1:
            del sent[at : at + rng.randint(1, 20)]
        else:
            sent[at:at] = rng.choice(_NASTY)
    writer.write(bytes(sent))
    writer.write_eof()
    return bytes(sent), await _rest(reader)


async def damaged_json(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send a body whose values, or whose text, are wrong."""
    question = rng.choice(questions)
    content = json.loads(question.body)
    for _ in range(rng.randint(0, 3)):
        value = rng.choice(_VALUES)
        target = (
            rng.choice([content, rng.choice(content["rows"])])
            if isinstance(content.get("rows"), list) and content["rows"]
            else content
        )
        if isinstance(target, dict):
            target[rng.choice([*target, "budget", "interval", "importance", "texts", "new"])] = value
    body = bytearray(json.dumps(content).encode())
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 3)] = rng.choice([b"", b"[", b"}", b'"', b"\\u12", b"NaN", b"\xff", b"9" * 5_000])
    sent = request(bytes(body), path=rng.choice([question.path] * 9 + ["/model"]))
    writer.write(sent)
    return sent, await _rest(reader)


async def megabytes(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send much: deep, long, or more than is allowed."""
    size = int(10 ** rng.uniform(5, 7.2))
    body = rng.choice(
        [b"[" * size, b'{"rows":[' + b"1," * (size // 2) + b"1]}", b'{"rows":["' + b"x" * size + b'"]}', b" " * size]
    )
    sent = request(body, path=rng.choice(questions).path)
    writer.write(sent)
    await writer.drain()
    return sent[:1_000], await _rest(reader)


_FIELDS = ("tasks", "importance", "budget", "probabilities", "interval", "rows", "x", "images", "")


async def form_of_fields(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send a form of very many fields, known and unknown ones, or of few that are large."""
    # One more than is allowed, sometimes; few fields are longer than allowed, sometimes.
    count, name = rng.choice((1, 20, 990, 1_001)), rng.choice(_FIELDS)
    length = min(rng.choice((1, 1_000, 7_000, 65_000, 200_000)), 7_000_000 // count)
    text = rng.choice((b"[" * length, b"0," * (length // 2) + b"0", b"[" + b"1," * (length // 2) + b"1]", b" " * length))
    parts = []
    for number in range(count):
        field = name or rng.choice((f"x{number}", "tasks", "importance"))
        parts.append(b'--x\r\nContent-Disposition: form-data; name="' + field.encode() + b'"\r\n\r\n' + text + b"\r\n")
    body = b"".join(parts) + b"--x--\r\n"
    sent = request(body, path=rng.choice(questions).path, kind="multipart/form-data; boundary=x")
    writer.write(sent)
    await writer.drain()
    return sent[:10_000], await _rest(reader)


@functools.cache
def bombs() -> tuple[bytes, ...]:
    """Return small pictures that are large; making them takes some seconds the first time."""
    rng = random.Random(1)
    return tuple(content for content in (bomb(rng) for _ in range(40)) if len(content) < 2_000_000)


async def picture_bombs(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: Questions
) -> tuple[bytes, bytes]:
    """Send small pictures that are large when they are decoded, as texts or as a form."""
    content, path = rng.choice(bombs()), rng.choice(questions).path
    if rng.random() < 0.7:
        sent = request(json.dumps({"images": [base64.b64encode(content).decode()] * rng.choice((1, 4))}).encode(), path=path)
    else:
        name = rng.choice((b"a.png", b"../../a.png", b"\0", b"a.svg"))
        part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="' + name + b'"\r\n\r\n' + content + b"\r\n"
        body = part * rng.choice((1, 3)) + rng.choice((b"--x--\r\n", b"", b"--y--"))
        sent = request(body, path=path, kind="multipart/form-data; boundary=x")
    writer.write(sent)
    return sent[:10_000], await _rest(reader)


WAYS: tuple[Way, ...] = (
    *(
        silence,
        half_a_request,
        trickle,
        leave_early,
        never_read,
        damaged_http,
        damaged_json,
        megabytes,
        picture_bombs,
        form_of_fields,
    ),
)
