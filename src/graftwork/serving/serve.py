"""``graftwork serve``: a finished run behind HTTP, on ONNX Runtime and without torch; or many tuned models of one backbone, with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.serving.delta_folders import find_delta_folders, is_named_delta
from graftwork.serving.engine import Engine
from graftwork.serving.hosts import AllowedHosts
from graftwork.serving.limits import ServeLimits
from graftwork.serving.quiet_log import quiet_log
from graftwork.serving.service import Service

if TYPE_CHECKING:
    from graftwork.serving.stopping import Server

__all__ = ["TOKEN_VARIABLE", "make_server", "serve"]

TOKEN_VARIABLE = "GRAFTWORK_TOKEN"
"""Environment variable that holds the token if none is given."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    run_folder: str | Path | Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    threads: int | None = None,
    plan: str | None = None,
    base: str | None = None,
    device: str = "auto",
    allowed_hosts: Sequence[str] = (),
    on_ready: Callable[[str], None] | None = None,
    **limits: Any,
) -> None:
    """Serve the model of a run until SIGTERM, SIGINT or Ctrl-C; requests that were accepted are finished first.

    Args:
        run_folder: Folder that ``graftwork fit`` wrote. Several folders of ``graftwork tune``, or one ``delta`` folder, are served
            together, each under the name of its run (or that of ``"NAME=FOLDER"``): one backbone, a delta and heads each.
        host: Address to listen on; others than this machine reach only what is not 127.0.0.1.
        port: Port, or 0 for a free one.
        token: What clients must send as ``Authorization: Bearer TOKEN``; None takes ``$GRAFTWORK_TOKEN``, and without that
            anybody may ask.
        threads: Threads of ONNX Runtime for each session; None takes all cores.
        plan: Name of a finalist whose model the run kept; None is the chosen plan.
        base: Backbone that tuned models share; None takes the one that the first of them names. Given, a single run of
            ``graftwork tune`` is served from its delta, too.
        device: Where tuned models that share a backbone are computed: ``"auto"`` (an accelerator if there is one), ``"cpu"``,
            ``"cuda"`` or ``"mps"``. The model of a single run is a graph for ONNX Runtime, which answers on the CPU.
        allowed_hosts: Names by which clients call the server, beside those of the loopback address and the address that is
            listened on; ``*.example.org`` for all names below one, ``*`` for any. Requests for other names get 421.
        on_ready: Called with the server's address once it listens.
        limits: Fields of :class:`graftwork.serving.limits.ServeLimits`.

    Raises:
        FileFormatError: If the folder is no finished run.
        ConfigError: If a limit or an allowed host is wrong, the run has no model of the plan, models were tuned from different
            backbones, or the address cannot be listened on.
        MissingDependencyError: If the extra ``serve`` is not installed.

    Example:
        >>> serve("runs/emoji", port=8080, max_batch=128)  # doctest: +SKIP
        >>> serve("runs/emoji", plan="separate")  # doctest: +SKIP
        >>> serve(["runs/tune-reviews", "mails=runs/tune-2"])  # doctest: +SKIP
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
        # Both the name that was given and the address that it has.
        given = [host.rstrip(".")] if host and ":" not in host else []
        hosts = AllowedHosts([*allowed_hosts, *given], listener.getsockname()[0])
        engine = _open(run_folder, plan=plan, base=base, limits=chosen, threads=threads, device=device)
        # Before the address is announced: whoever waits for it may ask at once.
        engine.warm_up()
        try:
            with _signals_end_quietly(), quiet_log():
                make_server(engine, listener, hosts=hosts, token=token, on_ready=on_ready).run(sockets=[listener])
        finally:
            # After the server: what was accepted is still answered.
            engine.close()


def _open(
    folder: str | Path | Sequence[str | Path],
    *,
    plan: str | None,
    base: str | None,
    limits: ServeLimits,
    threads: int | None,
    device: str,
) -> Service:
    """Return what answers: the model of a run, or tuned models that share a backbone."""
    folders = [folder] if isinstance(folder, str | Path) else list(folder)
    if len(folders) == 1 and base is None and not is_named_delta(folders[0]):
        if device not in ("auto", "cpu"):
            raise ConfigError(
                f"The model of a single run answers with ONNX Runtime on the CPU; leave the device {device!r} out. It is for tuned runs "
                "that share a backbone (several of them, or one with its backbone: --base in the command line)."
            )
        return Engine(folders[0], limits=limits, threads=threads, plan=plan)
    if plan is not None:
        raise ConfigError(f"A plan ({plan!r}) is one of a single run. Leave it out where tuned models share a backbone.")
    from graftwork.serving.delta_engine import DeltaEngine

    engine = DeltaEngine(find_delta_folders(folders), backbone=base or "", limits=limits, threads=threads, device=device)
    apart = [(name, reason) for name in engine.models if (reason := engine.own_pass(name))]
    if apart:
        name, reason = apart[0]
        more = f" So do those of {len(apart) - 1} more models." if len(apart) > 1 else ""
        print(f"note: the rows of {name!r} run in a pass of their own: {reason}.{more}", file=sys.stderr)
    return engine


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


def make_server(
    engine: Service,
    listener: socket.socket,
    *,
    hosts: AllowedHosts,
    token: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> Server:
    """Return the server of an engine; its ``run(sockets=[listener])`` serves until ``should_exit`` is set.

    Args:
        engine: The model, or models.
        listener: A bound socket.
        hosts: The names that the server answers to.
        token: What clients must send; None lets everybody in.
        on_ready: Called with the server's address once it listens.

    Raises:
        ConfigError: If this process may open too few files.
    """
    import uvicorn

    from graftwork.serving.app import create_app
    from graftwork.serving.connections import ACCEPTED_AT_ONCE, Connection, Connections, connection_limit
    from graftwork.serving.stopping import Server

    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if token is None and host not in _LOOPBACK:
        print(f"warning: anybody who reaches {address} may ask. Set a token with --token or ${TOKEN_VARIABLE}.", file=sys.stderr)
    limits = engine.limits
    # Uploads above 1 MB go to the disk, one descriptor each; libraries and the model need some.
    most = connection_limit(limits.max_connections, 64 + (limits.max_bodies_bytes >> 20))
    if most < limits.max_connections:
        print(f"note: at most {most} connections at once, since this process may open few files (ulimit -n).", file=sys.stderr)
    connections = Connections(
        most,
        head_seconds=limits.header_timeout,
        # The application answers slow bodies at `timeout`; this is for bodies that nobody reads.
        body_seconds=limits.timeout + 1,
        write_seconds=limits.timeout,
        on_close=engine.metrics.count_closed,
    )
    engine.metrics.watch_connections(lambda: connections.num_open)
    config = uvicorn.Config(
        create_app(engine, token=token, hosts=hosts),
        # Chosen, not left to what happens to be installed: connections are watched in this protocol.
        loop="asyncio",
        http=Connection.of(connections),
        ws="none",
        proxy_headers=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=ACCEPTED_AT_ONCE,
    )
    return Server(
        config,
        connections,
        stop_seconds=limits.stop_timeout,
        on_ready=lambda: on_ready(address) if on_ready is not None else None,
        on_stop=engine.stop,
    )


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
