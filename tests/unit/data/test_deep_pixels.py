"""Pictures with more than 8 bits a value: one scale a set, decided at training, the same ever after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.deep_pixels import choose_scale, strips, survey_pictures, to_bytes
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.reading.ingest import open_suite

VALUES = {
    "float 0 to 1": (".tif", np.float32, 1.0),
    "float counts": (".tif", np.float32, 4000.0),
    "12 of 16 bits": (".png", np.uint16, 4095.0),
    "16 bits": (".png", np.uint16, 65535.0),
    "16 bits, tif": (".tif", np.uint16, 65535.0),
    "32 bits": (".tif", np.int32, 1e6),
}


def deep_set(folder: Path, kind: str, number: int = 40) -> list[float]:
    """Even pictures whose brightness is a target, 0 to 1; two of them at the ends."""
    ending, dtype, top = VALUES[kind]
    folder.mkdir()
    levels = [0.0, 1.0, *np.random.default_rng(0).uniform(0.02, 0.98, number - 2)]
    for index, level in enumerate(levels):
        Image.fromarray(np.full((8, 8), level * top, dtype=dtype)).save(folder / f"{index:03d}{ending}")
    rows = "".join(f"{index:03d}{ending},{level}\n" for index, level in enumerate(levels))
    (folder / "labels.csv").write_text("file,level\n" + rows)
    return levels


@pytest.mark.parametrize("kind", VALUES)
def test_one_scale_for_a_set_kept_with_the_encoder(tmp_path: Path, kind: str) -> None:
    levels = deep_set(tmp_path / "pics", kind)
    suite = open_suite(tmp_path / "pics", targets="level")
    shown = suite.inputs["image"][:, 4, 4, 0].astype(float) / 255
    train = suite.splits["train"]
    np.testing.assert_allclose(shown[train], np.asarray(levels)[train], atol=0.12)
    assert np.corrcoef(shown, levels)[0, 1] > 0.99
    notes = [note for note in suite.notes if "becomes 255" in note]
    assert len(notes) == 1
    assert notes[0].startswith("40 of 40 pictures hold ")
    assert set(suite.only_input.encoder["scales"]) == {"float" if "float" in kind else "integer"}
    again = encoder_from_state(json.loads(json.dumps(suite.only_input.encoder)))
    files = sorted((tmp_path / "pics").glob("*.[pt]*"))
    for row in (2, 7):  # one alone, as a server sees it, and as bytes
        np.testing.assert_array_equal(again.transform([files[row]])["image"][0], suite.inputs["image"][row])
        np.testing.assert_array_equal(again.transform([files[row].read_bytes()])["image"][0], suite.inputs["image"][row])


def test_pictures_of_8_bits_have_no_scale(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / "a.png")
    survey = survey_pictures([tmp_path / "a.png"])
    assert (survey.scales, survey.notes) == ({}, ())
    assert "scales" not in ImageEncoder(8).state()


def test_training_rows_decide(tmp_path: Path) -> None:
    paths = []
    for index, top in enumerate((100, 200, 60000)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(np.full((8, 8), top, np.uint16)).save(paths[-1])
    assert survey_pictures(paths, [0, 1]).scales == {"integer": (0.0, 255.0)}
    assert survey_pictures(paths).scales == {"integer": (0.0, 65535.0)}
    Image.new("L", (8, 8), 3).save(tmp_path / "flat.png")
    assert survey_pictures([tmp_path / "flat.png", *paths[:2]], [0]).scales == {"integer": (0.0, 255.0)}, (
        "no training row is deep"
    )


def test_integers_and_floats_have_scales_of_their_own(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "b.tif")
    Image.fromarray((ramp * 255).astype(np.uint8)).save(tmp_path / "c.png")
    paths = [tmp_path / name for name in ("a.png", "b.tif", "c.png")]
    survey = survey_pictures(paths)
    assert survey.scales == {"integer": (0.0, 65535.0), "float": (0.0, 1.0)}
    assert len(survey.notes) == 2
    encoded = ImageEncoder(8, scales=survey.scales).transform(paths)["image"].astype(int)
    assert np.abs(encoded - encoded[2]).max() <= 1


def test_values_that_are_not_finite_and_flat_pictures_are_said(tmp_path: Path) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "b.tif")
    Image.fromarray(np.full((8, 8), 0.4, np.float32)).save(tmp_path / "c.tif")
    paths = [tmp_path / f"{name}.tif" for name in "abc"]
    survey = survey_pictures(paths)
    assert survey.scales == {"float": (0.0, 1.0)}
    assert "not finite count as 0: a.tif" in survey.notes[0]
    assert "they look flat" in survey.notes[0]
    shown = ImageEncoder(8, scales=survey.scales).encode_one(paths[0])
    assert shown[0, :3, 0].tolist() == [0, 255, 128]


def test_without_a_scale() -> None:
    assert to_bytes(np.array([0, 257, 65535]), "integer", {}).tolist() == [0, 1, 255]
    with pytest.raises(DataError, match="floating-point values, which no picture of the training data has"):
        to_bytes(np.zeros(3, np.float32), "float", {})
    with pytest.raises(DataError, match="integers of more than 8 bits"):
        to_bytes(np.array([-1, 70000]), "integer", {})


def test_float_pictures_for_a_model_of_8_bit_pictures_are_named(tmp_path: Path) -> None:
    Image.new("F", (8, 8), 0.5).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match=r"deep.tif \(floating-point values, which no picture of the training data has; save"):
        ImageEncoder(8).transform([tmp_path / "deep.tif"])


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        (0, 1, (0, 1)),
        (0.1, 0.9, (0, 1)),
        (0.1, 0.15, (0.1, 0.15)),
        (-1, 1, (-1, 1)),
        (0, 255, (0, 255)),
        (0, 256, (0, 1023)),
        (5, 4000, (0, 4095)),
        (0, 5000, (0, 16383)),
        (30000, 31000, (30000, 31000)),
        (-1024, 3071, (-1024, 3071)),
        (0, 1e6, (0, 1e6)),
        (0, 0, (0, 1)),
        (7, 7, (0, 15)),
        (-7, -7, (-7, 0)),
    ],
)
def test_usual_ranges(low: float, high: float, scale: tuple[float, float]) -> None:
    assert choose_scale(low, high) == scale


@given(st.floats(-1e30, 1e30), st.floats(0, 1e30))
def test_a_scale_holds_the_values_and_is_filled_by_them(low: float, span: float) -> None:
    high = low + span
    bottom, top = choose_scale(low, high)
    assert bottom <= low <= high <= top
    assert bottom < top
    assert high == low or high - low >= (top - bottom) / 8 * (1 - 1e-9)
    shown = to_bytes(np.array([low, high, bottom, top]), "float", {"float": (bottom, top)})
    assert shown[2:].tolist() == [0, 255]
    assert shown[0] <= shown[1]


@given(st.integers(1, 3000), st.integers(1, 5_000_000), st.integers(1, 40))
def test_strips_cover_the_height(height: int, width: int, step: int) -> None:
    found = list(strips(height, width, step))
    assert [top for top, _ in found] == [0, *[bottom for _, bottom in found[:-1]]]
    assert found[-1][1] == height
    assert all((bottom - top) % step == 0 for top, bottom in found[:-1])


def test_settings_are_checked() -> None:
    for wrong in ({"colour": (0, 1)}, {"float": (1, 0)}, {"integer": (0, float("nan"))}, {"float": (0, float("inf"))}):
        with pytest.raises(DataError, match="goes from a lower to a higher number"):
            ImageEncoder(8, scales=wrong)
