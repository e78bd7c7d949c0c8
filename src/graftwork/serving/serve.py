"""``graftwork serve``: a finished run behind HTTP, on ONNX Runtime and without torch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.serving.limits import ServeLimits

__all__ = ["TOKEN_VARIABLE", "serve"]

TOKEN_VARIABLE = "GRAFTWORK_TOKEN"
"""Environment variable that holds the token if none is given."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    run_folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    threads: int | None = None,
    plan: str | None = None,
    on_ready: Callable[[str], None] | None = None,
    **limits: Any,
) -> None:
    """Serve the model of a run until SIGTERM, SIGINT or Ctrl-C; requests that were accepted are finished first.

    Args:
        run_folder: Folder that ``graftwork fit`` wrote.
        host: Address to listen on; others than this machine reach only what is not 127.0.0.1.
        port: Port, or 0 for a free one.
        token: What clients must send as ``Authorization: Bearer TOKEN``; None takes ``$GRAFTWORK_TOKEN``, and without that
            anybody may ask.
        threads: Threads of ONNX Runtime for each session; None takes all cores.
        plan: Name of a finalist whose model the run kept; None is the chosen plan.
        on_ready: Called with the server's address once it listens.
        limits: Fields of :class:`graftwork.serving.limits.ServeLimits`.

    Raises:
        FileFormatError: If the folder is no finished run.
        ConfigError: If a limit is wrong, the run has no model of the plan, or the address cannot be listened on.
        MissingDependencyError: If the extra ``serve`` is not installed.

    Example:
        >>> serve("runs/emoji", port=8080, max_batch=128)  # doctest: +SKIP
        >>> serve("runs/emoji", plan="separate")  # doctest: +SKIP
    """
    for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        require(package, extra="serve", purpose="Serving")
    try:
        chosen = ServeLimits(**limits)
    except TypeError as error:
        raise ConfigError(f"{error}. The limits are: {', '.join(ServeLimits.__dataclass_fields__)}.") from error
    # Read here, so that an empty variable is refused and not taken for no token.
    token = _checked_token(token if token is not None else os.environ.get(TOKEN_VARIABLE))
    with contextlib.closing(_listen(host, port)) as listener:
        _run(run_folder, plan, listener, chosen, token, threads, on_ready)


def _checked_token(token: str | None) -> str | None:
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or any(letter.isspace() for letter in token):
        raise ConfigError(
            "The token must be visible ASCII characters without spaces, at least one. Make one with: openssl rand -hex 16"
        )
    return token


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, before the model is loaded: a port that is taken is the commonest fault."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"The port must be from 0 (a free one) to 65535; got {port}.")
    # With the protocol left open asyncio does not switch Nagle's algorithm off, and every answer waits 40 ms for an
    # acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {reason}. Choose another --port (0 takes a free one) or --host."
        ) from error
    return listener


def _run(
    run_folder: str | Path,
    plan: str | None,
    listener: socket.socket,
    limits: ServeLimits,
    token: str | None,
    threads: int | None,
    on_ready: Callable[[str], None] | None,
) -> None:
    import uvicorn

    from graftwork.serving.app import create_app
    from graftwork.serving.engine import Engine

    engine = Engine(run_folder, limits=limits, threads=threads, plan=plan)
    # Before the address is announced: whoever waits for it may ask at once.
    engine.warm_up()
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if token is None and host not in _LOOPBACK:
        print(f"warning: anybody who reaches {address} may ask. Set a token with --token or ${TOKEN_VARIABLE}.", file=sys.stderr)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if on_ready is not None and self.started:
                on_ready(address)

    config = uvicorn.Config(
        create_app(engine, token=token),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(limits.stop_timeout)),
        backlog=2048,
    )
    try:
        with _signals_end_quietly():
            Server(config).run(sockets=[listener])
    finally:
        # After the server: what was accepted is still answered.
        engine.close()


@contextlib.contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """After its shutdown uvicorn raises the signal again; here that is the normal end, not a failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # uvicorn puts its own handlers in place while it runs, and raises what it caught into these.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
