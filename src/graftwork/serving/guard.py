"""What every request passes before and after its answer: name of the server, token, size of the body, headers, counts. An ASGI
middleware; no torch."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from graftwork.serving.hosts import AllowedHosts
from graftwork.serving.metrics import ServerMetrics
from graftwork.serving.problems import Problem, RequestError

__all__ = ["Guard", "refusal_headers"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
]
_DRAINED = 4
"""A body that is too large is read to its end, and thrown away, up to so many times the limit: then the client hears why."""


def refusal_headers(refusal: RequestError) -> dict[str, str]:
    """Return the headers that belong to an error."""
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == 408:
        # The rest of the body would be taken for the next request.
        headers["Connection"] = "close"
    return headers


class _Body:
    """How much of a body was seen, and how much of it is held."""

    __slots__ = ("seen", "size")

    def __init__(self) -> None:
        self.seen = 0
        self.size = 0


class Guard:
    """Wraps an ASGI application.

    Args:
        application: What answers.
        metrics: Counts requests.
        paths: Paths that are counted by their name, the others as ``other``.
        open_paths: Paths that need no token.
        max_body_bytes: Largest body; beyond, the answer is 413.
        max_bodies_bytes: Of all requests in work together; beyond, the answer is 503.
        token: What ``Authorization: Bearer`` must carry; None lets everybody in.
        hosts: The names that the server answers to; None for any.
        is_stopping: Whether new requests are to be refused.
        counted_as: The name by which a path is counted, for paths with the names of models in them.
    """

    def __init__(
        self,
        application: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        metrics: ServerMetrics,
        paths: frozenset[str],
        open_paths: frozenset[str],
        max_body_bytes: int,
        max_bodies_bytes: int,
        token: str | None,
        hosts: AllowedHosts | None,
        is_stopping: Callable[[], bool],
        counted_as: Callable[[str], str] = str,
    ) -> None:
        self._application = application
        self._metrics = metrics
        self._paths = paths
        self._open_paths = open_paths
        self._limit = max_body_bytes
        self._limit_of_all = max_bodies_bytes
        self._held = 0
        self._hosts = hosts
        self._is_stopping = is_stopping
        self._counted_as = counted_as
        self._token = token.encode("utf-8") if token is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        # Before anything is looked at: refused requests are counted and timed as well.
        started = time.perf_counter()
        status = 0
        body = _Body()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # On every answer, those of the framework's own errors included.
                closing = [(b"connection", b"close")] if self._is_stopping() else []
                message["headers"] = [*message.get("headers", []), *_HEADERS, *closing]
            await send(message)

        try:
            self._check_host(scope)
            if self._is_stopping():
                raise _stopping()
            self._check_token(scope)
            await self._application(scope, self._limited(scope, receive, body), send_on)
        except RequestError as refusal:
            await _answer(refusal, send_on)
        except asyncio.CancelledError:
            # The time for stopping is over: whoever still waits hears it, rather than nothing.
            if status or not self._is_stopping():
                raise
            await _answer(_stopping(), send_on)
        finally:
            self._held -= body.size
            # Anybody can ask for any path, and every name would be a new series in the metrics.
            path = self._counted_as(scope["path"])
            path = path if path in self._paths else "other"
            self._metrics.count_request(path, status or 500, time.perf_counter() - started)

    def _check_host(self, scope: Scope) -> None:
        if self._hosts is None:
            return
        given = _header(scope, b"host").decode("latin-1")
        if not self._hosts.allow(given, (scope.get("server") or ("",))[0]):
            allowed = f"one of {', '.join(self._hosts.names)}; others are allowed with --allowed-hosts"
            raise RequestError(421, "This server has another name.", Problem("Host", given or None, allowed))

    def _check_token(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in self._open_paths:
            return
        given = _header(scope, b"authorization")
        scheme, _, token = given.partition(b" ")
        fits = hmac.compare_digest(token.strip(), self._token)  # takes as long for a near miss as for a far one
        if scheme.lower() != b"bearer" or not fits:
            state = "a wrong token" if given else None
            raise RequestError(401, "This server needs a token.", Problem("Authorization", state, "Authorization: Bearer TOKEN"))

    def _limited(self, scope: Scope, receive: Receive, body: _Body) -> Receive:
        """Return a ``receive`` that refuses bodies above the limits."""
        length = _header(scope, b"content-length")
        # A missing or senseless length: the body is counted as it comes.
        announced = int(length) if length.isdigit() and len(length) < 20 else 0

        async def receive_on() -> Message:
            # So far above the limit, reading on only to be polite would cost too much.
            if announced > self._limit * _DRAINED:
                raise self._too_large(announced)
            message = await self._next(receive, body)
            while body.seen > self._limit and message.get("more_body") and body.seen <= self._limit * _DRAINED:
                message = await self._next(receive, body)
            if body.seen > self._limit:
                raise self._too_large(max(announced, body.seen))
            return message

        return receive_on

    async def _next(self, receive: Receive, body: _Body) -> Message:
        message = await receive()
        size = len(message.get("body", b""))
        body.seen += size
        # What is above the limit of one request is thrown away, so it is not held.
        if body.seen <= self._limit:
            body.size += size
            self._held += size
            if self._held > max(self._limit_of_all, self._limit):
                problem = Problem(
                    "", f"{self._held} bytes in work", f"at most {self._limit_of_all} bytes; ask again a little later"
                )
                raise RequestError(503, "The server has too much to do.", problem, retry_after=1)
        return message

    def _too_large(self, size: int) -> RequestError:
        return RequestError(
            413,
            "The request is too large.",
            Problem("", f"{size} bytes", f"at most {self._limit} bytes; send fewer rows at once"),
        )


def _stopping() -> RequestError:
    return RequestError(503, "The server is stopping. Ask again when it has started anew.", retry_after=5)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


async def _answer(refusal: RequestError, send: Send) -> None:
    body = json.dumps(refusal.json()).encode("ascii")
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal_headers(refusal)}
    encoded = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
