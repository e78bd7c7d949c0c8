"""Which column of a label table names the pictures. Where that is not certain, the user is asked, never guessed for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import check_names, short_list
from graftwork.data.reading.cells import text_codes
from graftwork.data.reading.picture_names import FORMS, NameMatches, PictureNames, looks_like_picture_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PictureColumn", "choose_picture_column"]

_SAMPLE = 2000
_RIVAL = 0.8
"""A column that names at least this share of the pictures that the best one names is taken as seriously."""


@dataclass(frozen=True, slots=True)
class PictureColumn:
    """A column of a label table, matched with the pictures."""

    name: str
    codes: NDArray[np.int64]
    """``[rows]``: number of each row's cell in ``cells``, -1 where it is empty."""
    cells: list[str]
    """The different cells."""
    matches: NameMatches
    same: tuple[str, ...] = ()
    """Other columns that name the same pictures."""

    @property
    def pictures(self) -> NDArray[np.int64]:
        """``[rows]``: the picture of each row, -1 where there is none."""
        numbers = [self.matches.picture.get(cell, -1) for cell in self.cells]
        return np.array([*numbers, -1], dtype=np.int64)[self.codes]

    @property
    def names_files(self) -> bool:
        """Whether most cells end like picture files."""
        sample = _sample(self.cells)
        # max: an empty sample names no files.
        return 2 * sum(map(looks_like_picture_name, sample)) >= max(len(sample), 1)

    def count(self, *, with_ending: bool) -> int:
        """Return how many pictures the cells name, those included that are not clear."""
        found = self.matches.only(with_ending=True) if with_ending else self.matches
        return len(found.pictures) + len(found.unclear)

    def note(self, relative: tuple[str, ...]) -> str:
        """Return a sentence about which column it is, how many rows match, and how."""
        rows = int((self.pictures >= 0).sum())
        text = f"Column {self.name!r} names the pictures: {rows} of {len(self.codes)} rows match one"
        ways = []
        for form, number in sorted(Counter(self.matches.form[cell] for cell in self.matches.picture).items()):
            if form > 0:
                cell = next(cell for cell in self.matches.picture if self.matches.form[cell] == form)
                ways.append(f"{number} {FORMS[form]} ({cell!r} is {relative[self.matches.picture[cell]]})")
        text += f", {'; '.join(ways)}." if ways else "."
        return text + (f" So does {short_list(map(repr, self.same))}." if self.same else "")


def choose_picture_column(table: pd.DataFrame, names: PictureNames, where: str, asked: str | None = None) -> PictureColumn:
    """Return the column whose cells name the pictures.

    Columns with file endings win over columns that match names without ending (row numbers do so by chance). Among equals the one
    wins that names clearly more pictures; columns that name the same pictures are no rivals.

    Args:
        table: The labels.
        names: The pictures.
        where: The table, for messages.
        asked: The column that the user named; None chooses.

    Raises:
        DataError: If no column names pictures, if several columns do so equally well and differ, or if cells can mean several
            pictures.
    """
    if asked is not None:
        check_names([asked], map(str, table.columns), what="--image-column", where=where)
        best = _matched(table, asked, names, whole=True)
        if best.count(with_ending=False) == 0:
            raise DataError(
                f"{where}: column {asked!r} names none of the pictures. Its cells are {_examples(best.cells)}, the pictures are "
                f"{_examples(names.relative)}. Name another column with --image-column (image_column=... in Python), or mend "
                "its cells."
            )
        return _clear(best, names, where)
    columns = [_matched(table, name, names, whole=False) for name in map(str, table.columns)]
    # A sample of each column is quick but can miss; before giving up all cells are looked at.
    if not any(column.count(with_ending=False) for column in columns):
        columns = [_matched(table, name, names, whole=True) for name in map(str, table.columns)]
    matching = [column for column in columns if column.count(with_ending=False)]
    if not matching:
        raise DataError(
            f"{where}: no column names the pictures. Cells must be file names such as {names.relative[0]!r}; the columns are "
            f"{short_list(table.columns)}. Add a column with the file names."
        )
    # Row numbers match `1.png` without its ending by chance; an ending is no chance.
    files = [column for column in matching if column.names_files and column.count(with_ending=True)]
    # Names of pictures that are not here: the labels probably belong to another folder.
    strangers = [column for column in columns if column.names_files and not column.count(with_ending=False)]
    if not files and strangers:
        best = max(matching, key=lambda column: column.count(with_ending=False))
        raise DataError(
            f"{where}: column {strangers[0].name!r} holds names of picture files ({_examples(strangers[0].cells)}), none "
            f"of which is in the folder; column {best.name!r} matches {best.count(with_ending=False)} of {len(names.relative)} "
            f"pictures, perhaps by chance ({_examples(best.cells)}). {_choice(best.name)}"
        )
    return _clear(_winner(files or matching, names, where, with_ending=bool(files)), names, where)


def _winner(columns: list[PictureColumn], names: PictureNames, where: str, *, with_ending: bool) -> PictureColumn:
    ranked = sorted(columns, key=lambda column: -column.count(with_ending=with_ending))
    best, most = ranked[0], ranked[0].count(with_ending=with_ending)
    pictures, same = best.pictures, []
    for rival in ranked[1:]:
        others = rival.pictures
        # Rows in which both name a picture, but not the same one.
        apart = np.flatnonzero((pictures >= 0) & (others >= 0) & (pictures != others))
        number = rival.count(with_ending=with_ending)
        if not len(apart):
            same += [rival.name] if number >= _RIVAL * most and (others >= 0).any() else []
        elif number >= _RIVAL * most:
            row = int(apart[0])
            raise DataError(
                f"{where}: columns {best.name!r} and {rival.name!r} both name pictures ({most} and {number} of "
                f"{len(names.relative)}), but not the same ones: row {row + 1} is {names.relative[pictures[row]]} by "
                f"{best.name!r} and {names.relative[others[row]]} by {rival.name!r}. {_choice(best.name)}"
            )
    return PictureColumn(best.name, best.codes, best.cells, best.matches, tuple(same))


def _clear(column: PictureColumn, names: PictureNames, where: str) -> PictureColumn:
    """Return the column if each cell means one picture at most, and each picture has one row at most."""
    if column.matches.unclear:
        texts = [
            f"{cell!r} can be {' or '.join(names.relative[index] for index in found[:3])}"
            for cell, found in column.matches.unclear.items()
        ]
        remedy = "the path below the folder" if column.matches.only(with_ending=True).unclear else "names with their ending"
        raise DataError(
            f"{where}: {len(texts)} cells of column {column.name!r} can mean several pictures: {short_list(texts, 3)}. "
            f"Write {remedy}, or remove the pictures that are not meant."
        )
    pictures = column.pictures
    named, counts = np.unique(pictures[pictures >= 0], return_counts=True)
    doubled = []
    for index in named[counts > 1][:6].tolist():
        cells = [cell for cell in column.cells if column.matches.picture.get(cell) == index]
        doubled.append(cells[0] if len(cells) == 1 else f"{' and '.join(map(repr, cells[:3]))} for {names.relative[index]}")
    if doubled:
        raise DataError(
            f"{where}: column {column.name!r} names pictures more than once: {short_list(doubled, 5)}. Keep one row per picture."
        )
    return column


def _matched(table: pd.DataFrame, name: str, names: PictureNames, *, whole: bool) -> PictureColumn:
    """Return a column with its matches; of none if no cell of a sample matches, unless the ``whole`` column is asked for."""
    codes, cells = text_codes(table[name])
    sample = _sample(cells)
    matches = names.match(sample)
    if len(sample) < len(cells) and (whole or matches.form):
        matches = names.match(cells)
    return PictureColumn(name, codes, cells, matches)


def _sample(cells: list[str]) -> list[str]:
    # Evenly over the column, whose beginning may be of one class.
    return cells[:: max(1, len(cells) // _SAMPLE)][:_SAMPLE]


def _examples(texts: list[str] | tuple[str, ...]) -> str:
    return short_list(map(repr, texts[:3]))


def _choice(name: str) -> str:
    return f"Say which column is right: --image-column {name} (image_column={name!r} in Python, or in suite.yaml)."
