"""One root seed, named streams: adding a consumer of randomness never changes what the others draw."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Seeds"]


@dataclass(frozen=True, slots=True)
class Seeds:
    """A root seed from which independent named streams are derived.

    Example:
        >>> Seeds(0).integer("init") == Seeds(0).integer("init")
        True
        >>> Seeds(0).integer("init") == Seeds(0).integer("batches")
        False
    """

    root: int
    """Any integer; equal roots and names give equal streams on every machine."""

    def integer(self, name: str) -> int:
        """Return a seed in ``[0, 2**63)`` for the stream ``name``."""
        # A hash and no sum of root and number: neighbouring roots must not share streams.
        digest = hashlib.sha256(f"{self.root}/{name}".encode()).digest()
        # 63 bits: no sign bit, so that every library takes the number.
        return int.from_bytes(digest[:8], "big") >> 1

    def child(self, name: str) -> Seeds:
        """Return the root of a sub-tree of streams."""
        return Seeds(self.integer(name))

    def numpy(self, name: str) -> np.random.Generator:
        """Return a NumPy generator for the stream ``name``."""
        import numpy as np

        return np.random.default_rng(self.integer(name))

    def torch(self, name: str) -> torch.Generator:
        """Return a CPU torch generator for the stream ``name``."""
        import torch

        return torch.Generator().manual_seed(self.integer(name))

    def set_global(self, name: str) -> None:
        """Seed Python's, NumPy's and torch's global generators (module initialisation and dropout draw from them)."""
        import random

        import numpy as np
        import torch

        seed = self.integer(name)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries that still draw from the global state)
        torch.manual_seed(seed)
