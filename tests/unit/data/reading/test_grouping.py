"""Columns that group rows are found whatever their name; categories and quantities are not taken for groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork import open_suite
from graftwork.core.errors import DataError
from graftwork.data.reading.group_names import is_group_name
from graftwork.data.reading.grouping import find_group
from graftwork.data.reading.infer import infer_tasks, parse_targets
from graftwork.data.reading.within_groups import class_share, mean_ranks, neighbour_share, number_share, some_groups

PEOPLE = 42


def visits(column: str, *, people: int = PEOPLE, each: int = 12, seed: int = 0, as_words: bool = False) -> pd.DataFrame:
    """Repeated measurements of a few dozen people: both scores hardly change within one of them."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    level = rng.normal(20, 8, (people, 2))[who]
    voice = rng.normal(size=(people, 5))[who] + 0.5 * rng.normal(size=(len(who), 5))
    frame = pd.DataFrame(voice, columns=[f"voice_{index}" for index in range(5)])
    frame["age"] = rng.integers(40, 85, people)[who]
    frame["sex"] = rng.integers(0, 2, people)[who]
    frame["day"] = rng.uniform(0, 200, len(who)).round(3)
    frame["motor"] = (level[:, 0] + 1.5 * rng.normal(size=len(who))).round(3)
    frame["total"] = (level[:, 1] + 1.5 * rng.normal(size=len(who))).round(3)
    names = rng.permutation(people)[who] + 1
    frame.insert(0, column, [f"{number:03d}-x" for number in names] if as_words else names)
    return frame.sample(frac=1.0, random_state=seed).reset_index(drop=True)


def found_in(frame: pd.DataFrame, targets: str) -> str:
    tasks = infer_tasks(frame, parse_targets(targets, list(frame.columns)))
    used = {column for task in tasks for column in task.spec.columns}
    return find_group(frame, [name for name in frame.columns if name not in used], tasks).column


@pytest.mark.parametrize("name", ["subject#", "patient.id", "Subject No.", "patientId", "a1", "Code", "Unnamed: 3"])
@pytest.mark.parametrize("as_words", [False, True], ids=["numbers", "words"])
def test_people_are_found_whatever_their_column_is_called(name: str, as_words: bool) -> None:
    assert found_in(visits(name, as_words=as_words), "motor,total") == name


def test_rows_of_a_person_are_on_one_side_of_every_split() -> None:
    frame = visits("subject#")
    suite = open_suite(frame, targets="motor,total")
    sides = [set(frame["subject#"].to_numpy()[rows]) for rows in suite.splits.values()]
    assert sum(map(len, sides)) == PEOPLE
    assert suite.notes[0].startswith("Rows of one 'subject#' belong together (42 values, 12 rows each on average, and 9")
    assert "subject#" not in str(suite.input_specs["table"].encoder), "the group is no feature"
    assert not suite.raw["crossing"]


def test_an_ignored_column_still_keeps_its_rows_together() -> None:
    frame = visits("subject#")
    suite = open_suite(frame, targets="motor,total", ignore="subject#")
    assert suite.groups is not None
    assert len(np.unique(suite.groups)) == PEOPLE


def test_the_user_decides() -> None:
    frame = visits("subject#")
    by_rows = open_suite(frame, targets="motor,total", group="none")
    assert by_rows.groups is None
    assert not by_rows.raw["crossing"]
    assert not any("belong together" in note for note in by_rows.notes)
    by_age = open_suite(frame, targets="motor,total", group="age")
    assert by_age.groups is not None
    assert len(np.unique(by_age.groups)) == frame["age"].nunique()
    named_none = open_suite(frame.rename(columns={"subject#": "none"}), targets="motor,total", group="none")
    assert named_none.groups is not None
    assert len(np.unique(named_none.groups)) == PEOPLE, "a column may be called none"


def test_too_few_people_to_split_by() -> None:
    suite = open_suite(visits("patient", people=6, each=60), targets="motor,total")
    assert suite.groups is None
    assert "rows of one patient are on both sides" in suite.raw["crossing"]
    assert suite.notes[0].startswith("Scores of this split flatter, so nothing is asserted: rows of one patient")
    assert open_suite(visits("patient", people=6, each=60), targets="motor,total", group="none").raw["crossing"] == ""


def test_a_split_by_person_that_lacks_a_class_is_not_made() -> None:
    frame = visits("subject#")
    # All the ill rows are those of one person.
    frame["ill"] = (frame["subject#"] == 7).astype(int)
    suite = open_suite(frame, targets="motor,ill")
    assert suite.task_names == ("motor", "ill"), "no target is lost to a split that nobody asked for"
    assert suite.groups is None
    assert "leaves too few rows of some class" in suite.raw["crossing"]


def test_the_visit_of_a_person_is_not_taken_for_the_person() -> None:
    frame = visits("subject#")
    frame["visit"] = frame.groupby("subject#").cumcount() // 3 + 100 * frame["subject#"]
    assert found_in(frame, "motor,total") == "subject#"
    assert found_in(frame.rename(columns={"subject#": "a", "visit": "b"}), "motor,total") == "a"


@pytest.mark.parametrize(("name", "is_group"), [("visits", False), ("visit", True), ("users", False), ("patient", True)])
def test_numbers_in_a_plural_are_counts(name: str, is_group: bool) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(size=200), name: rng.poisson(3, 200), "y": rng.normal(size=200)})
    notes = [note for note in open_suite(frame, targets="y").notes if "looks like a group" in note]
    assert bool(notes) == is_group
    words = frame.assign(**{name: [f"v{number}" for number in frame[name]]})
    assert any("looks like a group by its name" in note for note in open_suite(words, targets="y").notes)


def plain_category(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    region = rng.integers(0, 30, rows)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)), columns=list("abcd"))
    return frame.assign(
        region=[f"r{number}" for number in region],
        region_code=region * 7 + 3,
        y=rng.normal(0, 5, 30)[region] + 0.3 * frame["a"],
    )


def few_regions(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    region = rng.integers(0, 6, rows)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)) + rng.normal(0, 3, (6, 4))[region], columns=list("abcd"))
    return frame.assign(region=[f"r{number}" for number in region], y=rng.normal(0, 5, 6)[region] + 0.3 * frame["a"])


def quantity(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    rooms = rng.integers(1, 60, rows)
    frame = pd.DataFrame(
        {"rooms": rooms, "area": rooms * 20 + rng.normal(0, 3, rows), "windows": rooms * 2 + rng.integers(0, 2, rows)}
    )
    return frame.assign(y=rooms * 10 + rng.normal(0, 1, rows))


def product_family(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return plain_category(rng, rows).rename(columns={"region": "product_family"})


def ratings(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    user, item = rng.integers(0, 40, rows), rng.integers(0, 50, rows)
    score = rng.normal(0, 0.5, 40)[user] + rng.normal(0, 0.7, 50)[item] + rng.normal(size=rows)
    return pd.DataFrame({"user": user, "item": item, "hour": rng.uniform(0, 24, rows), "y": score})


@pytest.mark.parametrize("make", [plain_category, few_regions, quantity, product_family, ratings])
def test_features_are_no_groups(make: Callable[[np.random.Generator, int], pd.DataFrame]) -> None:
    for seed in range(5):
        assert found_in(make(np.random.default_rng(seed), 600), "y") == ""


@pytest.mark.parametrize("name", ["model", "City", "product_id", "zip code"])
def test_a_name_of_a_kind_of_thing_is_no_group(name: str) -> None:
    assert found_in(visits(name), "motor,total") == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([60, 200, 500]), st.integers(10, 40), st.sampled_from(["person", "code", "store"]))
def test_null_worlds_stay_without_groups(seed: int, rows: int, levels: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=list("abc"))
    frame[name] = rng.integers(0, levels, rows)
    frame["kind"] = rng.choice(list("uvwxyz"), rows)
    frame["y"], frame["z"] = rng.normal(size=rows), rng.integers(0, 3, rows)
    assert found_in(frame, "y,z") == ""


def test_packaged_tables_have_no_groups() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    for load in (
        datasets.load_iris,
        datasets.load_wine,
        datasets.load_breast_cancer,
        datasets.load_diabetes,
        datasets.load_digits,
    ):
        table = load(as_frame=True).frame
        assert found_in(table, "target") == "", load.__name__
    wine = datasets.load_wine(as_frame=True).frame
    assert found_in(wine, "target,proline,alcohol") == ""
    digits = datasets.load_digits(as_frame=True).frame
    assert found_in(digits, "target,pixel_2_3") == ""
    assert found_in(datasets.load_linnerud(as_frame=True).frame, "Weight,Waist,Pulse") == ""


def test_what_is_too_little_is_said_before_training() -> None:
    frame = visits("subject#")
    assert any(note.startswith("There is one target") for note in open_suite(frame, targets="motor").notes)
    assert not any(note.startswith("There is one target") for note in open_suite(frame, targets="motor,total").notes)
    frame["won"] = [1, 1, *[0] * (len(frame) - 2)]
    suite = open_suite(frame, targets="motor,won")
    assert suite.task_names == ("motor",)
    assert any("has too few rows of all classes but one: 1 (2) of 504" in note and "5 are needed" in note for note in suite.notes)
    with pytest.raises(DataError, match="has only one class or value: 'a' in all 504 labelled rows.*at least two are needed"):
        open_suite(frame.assign(same="a"), targets="same")


def test_names() -> None:
    for name in ("subject#", "patient.id", "Subject No.", "SubjectID", "site", "user-key", "Household Number"):
        assert is_group_name(name), name
    for name in ("subjective", "opposite", "user_age", "patience", "code"):
        assert not is_group_name(name), name


def test_shares_by_hand() -> None:
    groups = np.array([0, 0, 1, 1, -1])
    assert number_share(groups, np.array([1.0, 1.0, 3.0, 3.0, 9.0])) == pytest.approx(1.0)
    # Within 1.0 over 2 degrees of freedom, in all 5.0 over 3.
    assert number_share(groups, np.array([0.0, 1.0, 2.0, 3.0, np.nan])) == pytest.approx(1.0 - (1.0 / 2) / (5.0 / 3))
    assert class_share(groups, np.array([4, 4, 0, 0, 1])) == pytest.approx(1.0)
    # One half is mixed: 1 of 4 within, over 2; impurity 4 - (9 + 1) / 4 over 3.
    assert class_share(groups, np.array([0, 0, 0, 1, 1])) == pytest.approx(1.0 - (1.0 / 2) / (1.5 / 3))
    assert number_share(np.array([-1, -1]), np.array([1.0, 2.0])) == 0.0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_class_share_of_two_classes_is_the_share_of_their_flag(values: list[int]) -> None:
    groups, classes = np.array(values) % 3, np.array(values) // 4
    assert class_share(groups, classes) == pytest.approx(number_share(groups, classes.astype(float)), abs=1e-9)


def test_quantities_follow_from_their_neighbours_and_ids_do_not() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 8)
    assert neighbour_share(groups, np.arange(50.0), np.sqrt(groups) + 0.1 * rng.normal(size=400)) > 0.9
    assert neighbour_share(groups, np.arange(50.0), rng.normal(size=50)[groups]) < 0.3


def test_samples_hold_whole_groups() -> None:
    groups = np.repeat(np.arange(500), 4)
    rows = some_groups(groups, 100)
    assert 90 <= len(rows) <= 100
    assert (np.bincount(groups[rows])[np.unique(groups[rows])] == 4).all()
    assert len(some_groups(groups, 10_000)) == 2000
    assert mean_ranks(np.array([2.0, np.nan, 1.0, 2.0])).tolist()[::2] == [2.5, 1.0]
