"""What a merged file says about where it came from: method, settings, and every input file with its hash."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.core.tensor_files import TensorSource
from graftwork.core.version import __version__
from graftwork.workflows.merge_hashes import InputHashes

__all__ = ["MADE_BY", "Lineage", "short_names"]

MADE_BY = "graftwork merge"
"""How the metadata of a merge begins to say what wrote it."""


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of each path, as many as it takes to tell different paths apart.

    Example:
        >>> short_names([Path("/a/x/model"), Path("/a/y/model")]), short_names([Path("base"), Path("b.safetensors")])
        (['x/model', 'y/model'], ['base', 'b.safetensors'])
    """
    whole = [path.absolute() for path in paths]
    for count in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-count:]) for path in whole]
        # Counted over different paths: a model that is given twice has one name.
        if len({*names}) == len({*whole}):
            return names
    return [str(path) for path in whole]


class Lineage:
    """Collects the lineage of a merge.

    Args:
        paths: What the user gave: the base, then the models; files or folders.
        sources: The opened ones.
        others: What is read beside them.
        has_base: Whether the first is a base.
        hashes: Takes the hashes of all files, which it begins to compute at once; None leaves them out.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        sources: Sequence[TensorSource],
        others: Sequence[TensorSource] = (),
        *,
        has_base: bool = True,
        hashes: InputHashes | None = None,
    ) -> None:
        # resolved only where the path itself has no name: links keep the name that the user knows
        roots = [path if path.absolute().name not in ("", "..") else path.resolve() for path in paths]
        beside = [file for source in others for file in source.files()]
        names = short_names([*roots, *beside])
        self._models = names[: len(paths)]
        self._base = self._models.pop(0) if has_base else ""
        self._files: dict[str, Path] = dict(zip(names[len(paths) :], beside, strict=True))
        # Not strict: `names` goes on with what is read beside the models.
        for path, name, source in zip(paths, names, sources, strict=False):
            self._files |= {
                f"{name}/{file.name}" if path.is_dir() or file.name != path.name else name: file for file in source.files()
            }
        self._hashes = hashes
        if hashes is not None:
            hashes.start(self._files.values())

    def metadata(self, settings: Mapping[str, Any], *, final: bool) -> dict[str, str]:
        """Return the lineage as texts for a safetensors header.

        Args:
            settings: The merger's.
            final: Whether to wait for the hashes; before that they are zeros of the same length.

        Raises:
            DataError: If an input could not be read for its hash.
        """
        digests: dict[str, str] = {}
        if self._hashes is not None:
            found = self._hashes.wait() if final else {}
            digests = {name: found.get(file, "0" * 64) for name, file in self._files.items()}
        return {
            "made_by": f"{MADE_BY} {__version__}",
            "method": json.dumps(dict(settings)),
            "base": self._base,
            "models": json.dumps(self._models),
            "inputs_sha256": json.dumps(digests),
        }
