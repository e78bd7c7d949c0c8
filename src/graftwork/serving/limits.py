"""What a server allows: rows, bytes, pixels, waiting times, queue. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from graftwork.core.errors import ConfigError

__all__ = ["ServeLimits"]

_RANGES = {
    "max_batch": (1, 65_536),
    "max_wait_ms": (0, 10_000),
    "max_rows": (1, 1_000_000),
    "max_body_bytes": (1_000, 1 << 31),
    "max_bodies_bytes": (1_000, 1 << 40),
    "max_pixels": (64, 1 << 31),
    "max_picture_pixels": (64, 150_000_000),
    "max_queue": (1, 1_000_000),
    "max_connections": (1, 1_000_000),
    "max_lanes": (1, 1_000),
    "header_timeout": (0.001, 3_600),
    "timeout": (0.001, 3_600),
    "stop_timeout": (0, 3_600),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeLimits:
    """Limits of a server.

    Raises:
        ConfigError: If one is out of range; all that are wrong are named.
    """

    max_batch: int = 64
    """Rows that run together."""
    max_wait_ms: float = 2.0
    """Milliseconds that the first request of a batch waits for others."""
    max_rows: int = 1_000
    """Rows of one request."""
    max_body_bytes: int = 16 << 20
    """Bytes of one request; 413 beyond."""
    max_bodies_bytes: int = 256 << 20
    """Bytes of all requests that are in work; 503 beyond. At least one request fits, whatever this says."""
    max_pixels: int = 64_000_000
    """Pixels of all pictures of one request together, before they are resized; 413 beyond. Pictures of all requests are decoded
    within this number of pixels at once; the others wait."""
    max_picture_pixels: int = 25_000_000
    """Pixels of one picture, three times as many for a JPEG that is not progressive, half as many for WebP; 413 beyond."""
    max_queue: int = 1_024
    """Requests that are in work at once; 503 beyond."""
    max_connections: int = 1_000
    """Connections that are open at once, fewer if the system's limit of descriptors asks for it; beyond, the one that has waited
    longest for its client is closed."""
    max_lanes: int = 32
    """Sets of tasks (of one sub-network) whose sessions stay open."""
    header_timeout: float = 10.0
    """Seconds for the headers of a request, from the opening of a connection on; 408 beyond."""
    timeout: float = 30.0
    """Seconds for one request, reading included; 408 if the client was slow, 504 if the model was."""
    stop_timeout: float = 30.0
    """Seconds that requests in work get when the server stops."""

    def __post_init__(self) -> None:
        problems = []
        for item in dataclasses.fields(self):
            low, high = _RANGES[item.name]
            value = getattr(self, item.name)
            # `true` is an integer to Python, and a limit of 1 would be a surprise.
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                problems.append(f"{item.name} must be from {low} to {high}; got {value!r}")
        if problems:
            raise ConfigError("The limits of the server are wrong.", problems)
