"""Folders that merges write: claimed by a marker of their own, swept, and filled with what stands beside the weights."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import atomic_path, read_json, remove_leftovers, write_json
from graftwork.core.folders import FolderKind, claim_folder, remove_own
from graftwork.core.model_folder import ADAPTER_NAMES
from graftwork.core.scratch import sweep
from graftwork.core.version import __version__

__all__ = ["COPY_NAME", "MERGE_KIND", "OTHER_NAMES", "TOKENIZER_NAMES", "own_file", "result_folder", "write_copies"]

MERGE_KIND = FolderKind(
    marker="graftwork_merge.json", format="graftwork-merge-1", noun="a merge of graftwork", lock=".graftwork_merge.lock"
)
COPY_NAME = "mergekit_config.yml"
"""The copy of the file that asked for the merge, called as mergekit calls it."""
TOKENIZER_NAMES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
)
"""Patterns of the files of a tokenizer."""
OTHER_NAMES = ("generation_config.json",)
"""Patterns of what else goes with the weights."""
# What a marker may name for removal: a marker that came from elsewhere must not name the user's files.
_WRITTEN = (
    *TOKENIZER_NAMES,
    *OTHER_NAMES,
    *ADAPTER_NAMES,
    COPY_NAME,
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)


def own_file(item: Path, home: Path) -> Path:
    """Return the real path of a file of a model's folder, which may be a link within it.

    Links of a download cache, from ``models--x/snapshots/<commit>/`` to ``models--x/blobs/``, are followed, too.

    Args:
        item: A file in ``home``.
        home: The model's folder.

    Raises:
        ConfigError: If it is a link to a file elsewhere: a model that came from somewhere else could lead to any file, whose
            content would then be in the result.
    """
    real, folder = item.resolve(), home.resolve()
    roots = [folder, folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [folder]
    if not any(real.is_relative_to(root) for root in roots):
        raise ConfigError(
            f"{item} is a link to {real}, outside of the model's folder. Its content would be copied into the result. Put the file "
            "itself there, or remove the link."
        )
    return real


def write_copies(copies: Mapping[str, Path], out: Path) -> None:
    """Copy files into the result, each whole or absent.

    Raises:
        StorageError: If the result cannot be written.
    """
    for name, source in copies.items():
        with atomic_path(out / name) as temporary:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def result_folder(out: Path, files: Iterable[str]) -> Iterator[list[str]]:
    """Claim the folder of a result for as long as it is written.

    The marker comes first, so that what a kill leaves is known as ours, and swept by the next merge into this folder. Files of an
    earlier merge that this one does not write are removed in the end. After an error nothing stays of a folder that was new.

    Args:
        out: The folder: absent, empty, or of an earlier merge.
        files: Names that the caller will write.

    Yields:
        Notes on what was swept.

    Raises:
        ConfigError: If the folder holds anything else, or another process works in it.
        StorageError: If it cannot be written.
    """
    names = sorted(files)
    claim = claim_folder(out, MERGE_KIND)
    try:
        before = [] if claim.is_new else _listed(out)
        _mark(out, [*names, *before], "writing")
        swept = [f"removed {item}, {size:,} bytes that a killed process left behind" for item, size in remove_leftovers(out)]
        sweep(out)  # folders as well
        yield swept
        for name in before:
            if name not in names:
                remove_own(out, name)
        _mark(out, names, "whole")
    except BaseException:
        claim.discard([*names, MERGE_KIND.marker, MERGE_KIND.lock])
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(out / MERGE_KIND.lock)  # still locked, so nobody else holds this one
        claim.release()


def _mark(out: Path, files: list[str], state: str) -> None:
    content = {"format": MERGE_KIND.format, "version": __version__, "state": state, "files": sorted(set(files))}
    write_json(out / MERGE_KIND.marker, content)


def _listed(out: Path) -> list[str]:
    """Return the files of an earlier merge that its marker names; names that no merge writes do not count."""
    content = read_json(out / MERGE_KIND.marker)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, list):
        raise FileFormatError(f"{out / MERGE_KIND.marker} is damaged: it names no files. Name another folder with --out.")
    return [
        name
        for name in files
        if isinstance(name, str) and "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in _WRITTEN)
    ]
