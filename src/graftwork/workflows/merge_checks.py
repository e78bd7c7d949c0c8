"""What ``graftwork merge`` looks at before and while it writes: the output, the bases of the models, their stored types, quantised
weights, running statistics, and values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.folders import check_output_file
from graftwork.core.tensor_files import FLOATS, TensorSource
from graftwork.core.tensor_header import read_header
from graftwork.data.names import short_list
from graftwork.methods.merging.sources import are_equal, largest_magnitude, num_not_finite
from graftwork.workflows.merge_lineage import MADE_BY

__all__ = ["check_bases", "check_folder_name", "check_out", "check_quantised", "name_not_finite", "note_statistics", "note_types"]

_QUANTISED = (
    ".qweight", ".qzeros", ".g_idx", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".absmax", ".quant_map", ".nested_absmax", ".SCB",
    ".weight_zero_point",
)  # fmt: skip
"""Ends of names that the formats of GPTQ, AWQ, bitsandbytes, compressed-tensors and FP8 checkpoints have, and others do not."""
_FILE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".npz", ".safetensor")
_STATISTICS = ("running_mean", "running_var")


def check_folder_name(out: str | Path) -> None:
    """Refuse a name for a folder that people give to files: who writes ``--out merged.pt`` does not want a folder of this name.

    Raises:
        ConfigError: If it is such a name.
    """
    suffix = Path(out).suffix.lower()
    if suffix in _FILE_SUFFIXES and not Path(out).is_dir():
        raise ConfigError(
            f"{out} is called like a file of another format: a name that ends in .safetensors becomes a file of weights, any other a folder. "
            f"Name it {Path(out).with_suffix('.safetensors')}, or give a folder a name without {suffix}."
        )


def check_out(out: str | Path, sources: Sequence[TensorSource], paths: Sequence[str | Path], *, is_claimed: bool = False) -> Path:
    """Refuse to write over a model that is read, or into its folder: every tensor file there is taken for a part of it.

    Args:
        out: The file to write. If it is there already, a merge must have written it.
        sources: What is read.
        paths: Where the models are.
        is_claimed: Whether the file is in a folder of which is known that a merge wrote it.

    Raises:
        ConfigError: If something else than a merge would be overwritten.
    """
    read = [file for source in sources for file in source.files()]
    # `out` may be a link to one of the inputs.
    out = check_output_file(out, read)
    for path in paths:
        if Path(path).is_dir() and out.parent.resolve() == Path(path).resolve():
            raise ConfigError(
                f"{out} lies in the folder of {path}, one of the models to merge. Choose a file elsewhere with --out."
            )
    return out if is_claimed else check_output_file(out, (), replaces=_is_merge)


def _is_merge(path: Path) -> bool:
    try:
        return read_header(path).metadata.get("made_by", "").startswith(MADE_BY)
    except FileFormatError:
        return False


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
    size = "infinite values" if np.isnan(largest) else f"values up to {largest:.3g}"  # NaN of a merge is infinity minus infinity
    return f"{name} ({size} do not fit {dtype})"


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


def check_quantised(sources: Sequence[TensorSource], paths: Sequence[Path]) -> None:
    """Refuse quantised models: their numbers are codes, with scales beside them, and a mean of codes is nothing.

    Raises:
        DataError: Naming the first such model, and what shows it.
    """
    for path, source in zip(paths, sources, strict=True):
        found = sorted(name for name in source if name.endswith(_QUANTISED))
        config = path / "config.json"
        content = read_json(config) if config.is_file() else None
        said = content.get("quantization_config") if isinstance(content, dict) else None
        if found or said:
            method = f" ({said['quant_method']})" if isinstance(said, dict) and isinstance(said.get("quant_method"), str) else ""
            what = f"its config.json has a quantization_config{method}" if said else f"it holds {short_list(found, 3)}"
            raise DataError(f"{path} is quantised: {what}. Merge unquantised models, or save this one dequantised first.")


def note_types(sources: Sequence[TensorSource], paths: Sequence[Path], stored: str = "") -> list[str]:
    """Return what is to be said of models that are stored in other floating-point types than the first.

    Args:
        sources: All models, the one that gives the types first.
        paths: Their paths.
        stored: Type of all tensors of the result; empty if it is that of the first model.
    """
    notes = []
    first = sources[0]
    for path, source in zip(paths[1:], sources[1:], strict=True):
        other = [name for name in source if name in first and source.is_float(name) and first.is_float(name)
                 and source.dtype_name(name) != first.dtype_name(name)]  # fmt: skip
        if other:
            types = sorted({source.dtype_name(name) for name in other}), sorted({first.dtype_name(name) for name in other})
            result = stored or f"as in {paths[0]}"
            notes.append(
                f"{path} stores {len(other)} tensors as {', '.join(types[0])} that are {', '.join(types[1])} in {paths[0]}; the merge computes in "
                f"float32 or wider, and the result is stored {'as ' if stored else ''}{result}."
            )
    return notes


def note_statistics(models: Sequence[TensorSource]) -> list[str]:
    """Return a note if a merge averages running statistics of BatchNorm that differ: the merged weights give others."""
    first = models[0]
    names = [name for name in first if name.endswith(_STATISTICS) and first.is_float(name)]
    shared = [name for name in names if all(name in model and model.shape(name) == first.shape(name) for model in models)]
    differ = [name for name in shared if not all(are_equal(first.lazy(name), model.lazy(name)) for model in models[1:])]
    if not differ:
        return []
    return [
        f"running statistics of {len({name.rpartition('.')[0] for name in differ})} BatchNorm layers are the mean of the models', not those of the "
        "merged weights: graftwork merge --repair --suite FILE measures them on training rows."
    ]
