"""Requests that schemathesis makes of a server's own schema, valid and invalid ones, for as long as a round lasts."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from graftwork.core.optional import has

__all__ = ["fuzz"]


def fuzz(
    address: str, seed: str, goes_on: Callable[[], bool], counts: Counter[str], fault: Callable[[str, bytes, bytes], None]
) -> None:
    """Ask until the round is over. Without the package ``schemathesis`` nothing is asked.

    Args:
        address: Of the server.
        seed: Decides the requests, as far as the server's schema is the same.
        goes_on: Whether the round goes on.
        counts: Gets the answers by status.
        fault: Called with words, request and answer where the server fails.
    """
    if not has("schemathesis"):
        counts["schemathesis is not installed"] += 1
        return
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as hypothesis_seed

    rng = random.Random(seed)
    try:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json", wait_for_schema=30.0)
    except Exception:  # turned away by the crowd
        counts["schema not reached"] += 1
        return

    class Over(Exception):  # noqa: N818  (a signal, not an error)
        """The round is over."""

    def check(case: Any) -> None:
        if not goes_on():
            raise Over
        try:
            response = case.call(timeout=10)
        except (requests.RequestException, ValueError):  # turned away; or a value that no request can hold
            counts["schemathesis: turned away"] += 1
            return
        counts[f"schemathesis: {response.status_code}"] += 1
        if response.status_code >= 500 and response.status_code not in (503, 504):
            fault(f"schemathesis: status {response.status_code}", repr(case).encode()[:10_000], response.content[:10_000])

    quiet = {"max_examples": 20, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
    operations = [found.ok() for found in schema.get_all_operations()]
    with contextlib.suppress(Over):
        while goes_on():
            operation = rng.choice(operations)
            mode = rng.choice((schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE))
            made = settings(**quiet, phases=(Phase.generate,))(given(case=operation.as_strategy(generation_mode=mode))(check))
            with contextlib.suppress(*_nothing_to_make()):
                hypothesis_seed(rng.randrange(2**32))(made)()


def _nothing_to_make() -> tuple[type[Exception], ...]:
    """Return what is raised where an operation has no requests of a kind."""
    from hypothesis.errors import FailedHealthCheck, Unsatisfiable

    return (FailedHealthCheck, Unsatisfiable)
