"""Linear algebra on one thread: sums in one order, whatever the machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

__all__ = ["one_thread"]


@lru_cache(maxsize=1)
def _controller() -> Any:
    """Return what sets the threads of the linear algebra libraries that are loaded; looking for them takes milliseconds."""
    import scipy.linalg  # noqa: F401  (it brings a library of its own)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which linear algebra runs on one thread."""
    found: Any = _controller().limit(limits=1, user_api="blas")
    return found if found is not None else nullcontext()
