"""Which picture a cell of a label table means: paths, names with and without ending, numbers. Standard library only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["FORMS", "NameMatches", "PictureNames", "looks_like_picture_name"]

_ENDING = re.compile(r"\.(png|jpe?g|jfif|bmp|gif|webp|tiff?|ppm|pgm)$", re.IGNORECASE)
_SAME_ENDINGS = {"jpeg": "jpg", "jfif": "jpg", "tiff": "tif"}
_NUMBER = re.compile(r"[0-9]{1,18}")

FORMS = (
    "with ending",
    "with ending, in other upper or lower case",
    "with ending, by the number that they are",
    "without ending",
    "without ending, in other upper or lower case",
    "without ending, by the number that they are",
)
"""How a cell may be written, from the surest to the least sure. The first three name the ending of the file."""
NUM_WITH_ENDING = 3


@dataclass(slots=True)
class NameMatches:
    """What a column's cells mean."""

    picture: dict[str, int] = field(default_factory=dict)
    """Picture of each cell that means one."""
    form: dict[str, int] = field(default_factory=dict)
    """Number of the form (see :data:`FORMS`) by which it was found."""
    unclear: dict[str, list[int]] = field(default_factory=dict)
    """Cells that could mean several pictures."""

    @property
    def pictures(self) -> set[int]:
        """The pictures that some cell means."""
        return set(self.picture.values())

    def only(self, with_ending: bool) -> NameMatches:
        """Return the matches of cells with the ending of the file, or without it."""
        kept = {text for text, form in self.form.items() if (form < NUM_WITH_ENDING) == with_ending}
        return NameMatches(
            {text: index for text, index in self.picture.items() if text in kept},
            {text: form for text, form in self.form.items() if text in kept},
            {text: found for text, found in self.unclear.items() if text in kept},
        )


def looks_like_picture_name(text: str) -> bool:
    """Return whether a cell ends like a picture file and is no address on the web."""
    return _ENDING.search(text) is not None and "://" not in text


def _parts(text: str) -> tuple[str, ...]:
    """Return the parts of a path of any system, in one Unicode form."""
    # NFC: macOS stores file names taken apart, tables are typed in one piece.
    clean = unicodedata.normalize("NFC", text.strip()).replace("\\", "/")
    return tuple(part for part in clean.split("/") if part not in ("", "."))


def _exact(parts: tuple[str, ...]) -> tuple[str, ...]:
    return parts


def _caseless(parts: tuple[str, ...]) -> tuple[str, ...]:
    folded = [unicodedata.normalize("NFC", part.casefold()) for part in parts]
    # jpeg and jpg name the same format, and people use either.
    stem, dot, ending = folded[-1].rpartition(".")
    folded[-1] = f"{stem}.{_SAME_ENDINGS[ending]}" if dot and ending in _SAME_ENDINGS else folded[-1]
    return tuple(folded)


def _numbered(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts with leading zeros cut off a name that is a number; empty if it is none."""
    *folders, name = _caseless(parts)
    number = _NUMBER.match(name)
    rest = name[number.end() :] if number else ""
    # 007.png and 7.png are the same number; 7a.png is none.
    return (*folders, f"{int(number.group())}{rest}") if number and (not rest or _ENDING.fullmatch(rest)) else ()


_SPELLINGS: tuple[Callable[[tuple[str, ...]], tuple[str, ...]], ...] = (_exact, _caseless, _numbered)


class _Index:
    """Pictures by one spelling: by the whole path below the folder, and by each shorter end of it."""

    def __init__(self, paths: Iterable[tuple[str, ...]]) -> None:
        self.whole: dict[tuple[str, ...], list[int]] = {}
        self.ends: dict[tuple[str, ...], list[int]] = {}
        for index, parts in enumerate(paths):
            if parts:
                self.whole.setdefault(parts, []).append(index)
                for start in range(len(parts)):
                    self.ends.setdefault(parts[start:], []).append(index)

    def find(self, parts: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
        """Return the pictures that a path can mean, and what stands in the path before the folder.

        The path is a picture's whole path, or the end of it, or has more in front of it.
        """
        # Whole paths before ends: `a/1.png` means that file, even if `b/a/1.png` exists.
        found = self.whole.get(parts) or self.ends.get(parts)
        if found:
            return found, ()
        for start in range(1, len(parts)):
            found = self.whole.get(parts[start:])
            if found:
                return found, parts[:start]
        return [], ()


class PictureNames:
    """The pictures of a folder by all names that a label may call them.

    Args:
        folder: Name of the folder.
        relative: Path of each picture below it, with ``/``.
    """

    def __init__(self, folder: str, relative: Sequence[str]) -> None:
        self.relative = tuple(relative)
        self._folder = unicodedata.normalize("NFC", folder).casefold()
        self._paths = [_parts(path) for path in relative]
        self._indices: dict[int, _Index] = {}

    def match(self, texts: Iterable[str]) -> NameMatches:
        """Return which picture each of some different cells means.

        The surest form decides for each cell. Where some cells name this folder before the picture (``train/1.png``), cells that
        name another one there (``test/1.png``) mean none.
        """
        matches = NameMatches()
        before: dict[str, str] = {}
        for text in texts:
            parts = _parts(text)
            if not parts:
                continue
            # A cell that has an ending means it; one without is looked for among names without.
            first = 0 if looks_like_picture_name(text.strip()) else NUM_WITH_ENDING
            for form in range(first, first + NUM_WITH_ENDING):
                spelt = _SPELLINGS[form % NUM_WITH_ENDING](parts)
                found, prefix = self._index(form).find(spelt) if spelt else ([], ())
                if found:
                    matches.form[text] = form
                    if prefix:
                        # The folder right before the picture's path, the only one that can be this folder.
                        before[text] = prefix[-1].casefold()
                    if len(found) == 1:
                        matches.picture[text] = found[0]
                    else:
                        matches.unclear[text] = found
                    break
        if self._folder in before.values():
            for text, name in before.items():
                if name != self._folder:
                    for part in (matches.picture, matches.form, matches.unclear):
                        part.pop(text, None)  # type: ignore[attr-defined]
        return matches

    def _index(self, form: int) -> _Index:
        if form not in self._indices:
            spell = _SPELLINGS[form % NUM_WITH_ENDING]
            with_ending = form < NUM_WITH_ENDING
            paths = self._paths if with_ending else [(*path[:-1], path[-1].rpartition(".")[0]) for path in self._paths]
            self._indices[form] = _Index(spell(path) for path in paths)
        return self._indices[form]
