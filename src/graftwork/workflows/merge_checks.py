"""What ``graftwork merge`` looks at before and while it writes: the output, the bases of the models, and values that are not
finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.folders import check_output_file
from graftwork.core.tensor_files import FLOATS, TensorSource
from graftwork.methods.merging.sources import largest_magnitude, num_not_finite

__all__ = ["check_bases", "check_out", "name_not_finite"]


def check_out(out: str | Path, sources: Sequence[TensorSource], paths: Sequence[str | Path]) -> Path:
    """Refuse to write over a model that is read, or into its folder: every tensor file there is taken for a part of it.

    Raises:
        ConfigError: If that would happen.
    """
    # `out` may be a link to one of the inputs.
    out = check_output_file(out, [file for source in sources for file in source.files()])
    for path in paths:
        if Path(path).is_dir() and out.parent.resolve() == Path(path).resolve():
            raise ConfigError(
                f"{out} lies in the folder of {path}, one of the models to merge. Choose a file elsewhere with --out."
            )
    return out


def name_not_finite(name: str, values: Any, dtype: str, sources: Sequence[TensorSource], paths: Sequence[Path]) -> str:
    """Return the tensor's name and where its NaN or infinity comes from; empty if all values fit the stored type.

    Args:
        name: Name of the tensor.
        values: Its values, before they are stored.
        dtype: Stored type, as safetensors calls it.
        sources: All models that went in.
        paths: Their paths.
    """
    if dtype not in FLOATS:
        return ""
    # BF16 reaches about as far as float32.
    limit = {"F16": 65504.0, "F64": np.inf}.get(dtype, float(np.finfo(np.float32).max))
    largest = largest_magnitude(values)
    if largest <= limit and np.isfinite(largest):
        return ""
    culprits = [path for path, source in zip(paths, sources, strict=True) if name in source and num_not_finite(source.lazy(name))]
    if culprits:
        return f"{name} (from {culprits[0]})"
    return f"{name} (values up to {largest:.3g} do not fit {dtype})"


def check_bases(
    base: TensorSource, sources: Sequence[TensorSource], paths: Sequence[Path], hash_of: Callable[[Path], str]
) -> None:
    """Refuse models whose metadata names another base than the one given.

    Args:
        base: The base given.
        sources: The models.
        paths: Their paths, for messages.
        hash_of: Returns the SHA-256 of a file.

    Raises:
        DataError: Naming the first such model.
    """
    if not any("base_fingerprint" in source.metadata for source in sources):
        return
    # A base is known by the hash of its file, or by the fingerprint that its maker wrote.
    known = {hash_of(file) for file in base.files()} | {base.metadata.get("fingerprint", "")}
    for path, source in zip(paths, sources, strict=True):
        wanted = source.metadata.get("base_fingerprint", "")
        if wanted and wanted not in known:
            raise DataError(
                f"{path} was tuned from another base (fingerprint {wanted[:12]}..., not that of the base given). "
                "Give its own base with --base, or leave the model out."
            )
