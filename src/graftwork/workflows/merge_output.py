"""Where a merge by flags is written: a file of weights, or a model folder that transformers loads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.files import remove_leftovers
from graftwork.core.folders import check_folder
from graftwork.core.model_folder import INDEX_NAME, MODEL_NAME
from graftwork.core.shards import split_layout, write_model
from graftwork.core.tensor_files import TensorSource, write_tensors
from graftwork.workflows.merge_beside import SideFiles, note_tokenizers, side_files
from graftwork.workflows.merge_changes import is_change
from graftwork.workflows.merge_checks import check_folder_name, check_out
from graftwork.workflows.merge_folder import MERGE_KIND, result_folder
from graftwork.workflows.merge_kinds import Merging

__all__ = ["Output", "is_file_name", "plan_output"]

Header = Mapping[str, str]


def is_file_name(out: str | Path) -> bool:
    """Return whether a result of this name is a file: it ends in ``.safetensors``, or is a file already."""
    return Path(out).suffix == ".safetensors" or os.path.isfile(out)


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Where a result goes; checked, nothing is written yet."""

    place: Path
    """The file or folder."""
    files: SideFiles | None
    """What goes with the weights into a folder; None for a file."""
    names: frozenset[str]
    """Tensors of the model whose configuration the folder has."""
    shard_size: int | None
    notes: tuple[str, ...]

    def write(
        self, merging: Merging, tensors: Iterable[tuple[str, Any]], metadata: Header, final: Callable[[], Header] | None
    ) -> list[str]:
        """Write the result.

        Args:
            merging: What is written, with its layout.
            tensors: Its tensors; merging happens while they are taken.
            metadata: Text for the header.
            final: Returns it with all that is known only in the end, as long as before; None leaves it.

        Returns:
            Notes.

        Raises:
            ConfigError: If another process works in the folder, or the weights would be in very many files.
            StorageError: If it cannot be written; an older result stays whole.
        """
        # As transformers wants it, also of a file that is put into a folder of its later on.
        form = {"format": "pt"}
        complete = None if final is None else lambda: {**form, **final()}
        if self.files is None:
            notes = [
                f"removed {file}, {size:,} bytes that a killed process left behind"
                for file, size in remove_leftovers(self.place.parent)
            ]
            write_tensors(self.place, merging.layout, tensors, {**form, **metadata}, merging.corrections, complete)
            return notes
        parts = split_layout(merging.layout, self.shard_size)
        with result_folder(self.place, {*parts, *([INDEX_NAME] if len(parts) > 1 else []), *self.files.names}) as swept:
            write_model(self.place, parts, tensors, {**form, **metadata}, complete, merging.corrections)
            self.files.write(self.place)
        others = self.files.config is not None and self.names != set(merging.layout)
        return [
            *swept,
            *(["the result has other tensors than the model whose config.json it has; the two may not fit."] if others else []),
        ]


def plan_output(
    out: str | Path,
    sources: Sequence[TensorSource],
    others: Sequence[TensorSource],
    paths: Sequence[Path],
    shard_size: int | None,
) -> Output:
    """Check where a result goes before anything is computed: a merge may take long.

    Args:
        out: A file if :func:`is_file_name` says so, otherwise a folder: absent, empty, or of an earlier merge.
        sources: The models, the base first if there is one; a folder has the configuration and the tokenizer of the first.
        others: What is read beside them.
        paths: Where the models are.
        shard_size: Largest number of bytes of a file of weights in a folder; None writes one.

    Raises:
        ConfigError: If it is an input, lies in the folder of one, or is a folder of something else; if a model folder of graftwork
            should be written, or a file in parts; or if a file beside the first model is a link that leaves its folder.
        FileFormatError: If the configuration of the first model is no JSON.
    """
    is_file = is_file_name(out)
    if is_file and shard_size is not None:
        raise ConfigError("--shard-size parts the weights of a folder. Leave it out, or name a folder with --out.")
    if is_file:
        place = check_out(out, [*sources, *others], paths)
        return Output(place=place, files=None, names=frozenset(), shard_size=None, notes=())
    check_folder_name(out)
    check_folder(out, MERGE_KIND)
    place = check_out(Path(out) / MODEL_NAME, [*sources, *others], paths, is_claimed=True).parent
    files = side_files(paths[0]) if paths else SideFiles()
    if str((files.config or {}).get("format", "")).startswith("graftwork-"):
        raise ConfigError(
            f"{paths[0]} is a model folder of graftwork, whose description tells how it was trained; that of a merge would not be true. "
            "Write the weights alone: give --out a name that ends in .safetensors."
        )
    whole = [path for path in paths if path.is_dir() and not is_change(path)]
    tokenizers = {str(path): (path / "tokenizer.json").read_bytes() for path in whole if (path / "tokenizer.json").is_file()}
    notes = (*files.notes, *note_tokenizers(tokenizers))
    return Output(place=place, files=files, names=frozenset(sources[0]), shard_size=shard_size, notes=notes)
