"""What tuning added to the backbones of a model, in files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from graftwork.interfaces.delta import Delta
from graftwork.interfaces.shared_model import SharedModel

__all__ = ["delta_files", "write_deltas"]


def delta_files(folder: str | Path) -> list[Path]:
    """Return the files of a folder that :func:`write_deltas` wrote."""
    return sorted([*Path(folder).glob("delta.safetensors"), *Path(folder).glob("delta-*.safetensors")])


def write_deltas(deltas: Mapping[str, Delta], model: SharedModel, folder: str | Path) -> list[Path]:
    """Write ``delta.safetensors``, or ``delta-<task>.safetensors`` for each task's backbone if there are several; empty deltas
    are left out.

    Characters of a task's name that are no letters, digits, dots, dashes or underscores become dashes in the file's name. A
    backbone that no single task owns goes by its name in the model.

    Args:
        deltas: By the backbone's name in ``model``.
        model: Says which task a backbone belongs to.
        folder: Made if absent.

    Returns:
        The files.

    Raises:
        StorageError: If the folder cannot be written.
    """
    files: list[Path] = []
    for prefix, delta in deltas.items():
        if not delta.count():
            continue
        path = Path(folder) / "delta.safetensors"
        if len(deltas) > 1:
            # Two tasks may have names that become the same file name.
            path = _free(Path(folder), re.sub(r"[^\w.-]+", "-", _owner(model, prefix) or prefix), files)
        delta.save(path)
        files.append(path)
    return files


def _owner(model: SharedModel, prefix: str) -> str:
    """Return the task to which all parameters of a module belong; empty if there is none."""
    inside = {id(parameter) for parameter in model.get_submodule(prefix).parameters()}
    return next((task for task in model.task_names if inside <= {id(item) for item in model.task_parameters(task)}), "")


def _free(folder: Path, name: str, taken: list[Path]) -> Path:
    # two names may differ in characters that no file name can hold
    number, path = 1, folder / f"delta-{name}.safetensors"
    while path in taken:
        number += 1
        path = folder / f"delta-{name}-{number}.safetensors"
    return path
