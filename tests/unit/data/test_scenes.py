from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.data.suite import labelled_rows
from graftwork.data.suites.scene_geometry import BODIES, rotate_y
from graftwork.data.suites.scene_labels import centre_offsets, occlusion_edges
from graftwork.data.suites.scene_layout import MAX_BODIES, SceneLayout, draw_layouts
from graftwork.data.suites.scene_render import CLASSES, STYLES, _camera, cast_rays
from graftwork.data.suites.scenes import TASKS, scene_domains, scenes

Array = NDArray[Any]
SMALL = {"num_train": 20, "num_val": 4, "num_test": 6}


def inside(kind: str, point: Array, half_width: float, height: float, slack: float = 0.0) -> bool:
    """Whether a point lies inside a body in its own frame."""
    x, y, z = point
    if kind == "sphere":
        return bool(x**2 + (y - half_width) ** 2 + z**2 <= (half_width + slack) ** 2)
    if not -slack <= y <= height + slack:
        return False
    if kind == "box":
        return bool(max(abs(x), abs(z)) <= half_width + slack)
    radius = half_width if kind == "cylinder" else half_width * (height - y) / height
    return bool(np.hypot(x, z) <= radius + slack)


def first_entry_by_marching(kind: str, origin: Array, direction: Array, half_width: float, height: float) -> float:
    """Slow and obvious: walk along the ray in small steps."""
    for distance in np.arange(0.0, 8.0, 2e-3):
        if inside(kind, origin + distance * direction, half_width, height):
            return float(distance)
    return float("inf")


@pytest.mark.parametrize("kind", list(BODIES))
def test_hits_agree_with_marching(kind: str) -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(25):
        half_width, height = generator.uniform(0.3, 0.6), generator.uniform(0.5, 1.4)
        origin = np.array([generator.uniform(-1.5, 1.5), generator.uniform(1.6, 2.5), -3.0], dtype=np.float32)
        aim = np.array([generator.uniform(-0.6, 0.6), generator.uniform(0.05, height), generator.uniform(-0.4, 0.4)])
        direction = ((aim - origin) / np.linalg.norm(aim - origin)).astype(np.float32)
        distance, normal = BODIES[kind](origin, direction, np.float32(half_width), np.float32(height))
        marched = first_entry_by_marching(kind, origin, direction, half_width, height)
        if not np.isfinite(marched):
            point = origin + float(distance) * direction if np.isfinite(distance) else None
            assert point is None or inside(kind, point, half_width, height, slack=5e-3)  # a graze that the walk stepped over
            continue
        hits += 1
        assert float(distance) == pytest.approx(marched, abs=6e-3)
        assert np.linalg.norm(normal) == pytest.approx(1.0, abs=1e-4)
        assert float(normal @ direction) <= 1e-5
        surface = origin + float(distance) * direction
        assert not inside(kind, surface + 0.01 * normal, half_width, height)
        assert inside(kind, surface - 0.01 * normal, half_width, height, slack=2e-3)
    assert hits >= 10


def test_hits_by_hand() -> None:
    origin, forward = np.array([0.0, 0.5, -5.0]), np.array([0.0, 0.0, 1.0])
    for kind, expected in (("sphere", 4.5), ("box", 4.5), ("cylinder", 4.5), ("cone", 4.75)):
        distance, _ = BODIES[kind](origin, forward, np.array(0.5), np.array(1.0))
        assert float(distance) == pytest.approx(expected), kind
    down = np.array([0.0, -1.0, 0.0])
    for kind, expected in (("sphere", 2.0), ("box", 2.0), ("cylinder", 2.0)):
        distance, normal = BODIES[kind](
            np.array([0.1, 3.0, 0.0]) * [0 if kind == "sphere" else 1, 1, 1], down, np.array(0.5), np.array(1.0)
        )
        assert float(distance) == pytest.approx(expected), kind
        assert normal.tolist() == pytest.approx([0.0, 1.0, 0.0])
    for hit in BODIES.values():
        assert hit(origin + np.array([2.0, 0.0, 0.0]), forward, np.array(0.5), np.array(1.0))[0] == np.inf
        assert hit(origin + np.array([0.0, 0.0, 9.0]), forward, np.array(0.5), np.array(1.0))[0] == np.inf, "behind the ray"


def test_turning() -> None:
    turned = rotate_y(np.array([[1.0, 2.0, 0.0]]), np.array([np.pi / 2]))
    assert turned[0].tolist() == pytest.approx([0.0, 2.0, -1.0], abs=1e-12)


def cast(layout: SceneLayout, size: int = 24) -> tuple[Any, Array, Array, Array]:
    place, rays, axes = _camera(layout, size)
    return cast_rays(layout, place, rays), place, rays, axes


@given(st.integers(0, 200))
def test_every_pixel_is_consistent(seed: int) -> None:
    layout = draw_layouts(3, np.random.default_rng(seed))
    seen, place, rays, _ = cast(layout)
    assert np.isfinite(seen.depth).all()
    assert (seen.depth > 0).all()
    assert np.linalg.norm(seen.normal, axis=-1) == pytest.approx(np.ones(seen.depth.shape), abs=1e-3)
    np.testing.assert_allclose(seen.point, place + seen.depth[..., None] * rays, atol=1e-4)
    facing = (seen.normal * rays).sum(axis=-1)
    assert (facing <= 1e-3).all(), "a visible surface looks towards the camera"
    floor, wall = seen.instance == 0, seen.instance == 1
    assert np.abs(seen.point[floor][:, 1]).max(initial=0.0) < 1e-3
    np.testing.assert_allclose(seen.point[wall][:, 2], np.broadcast_to(layout.wall[:, None], wall.shape)[wall], atol=1e-3)
    for slot in range(MAX_BODIES):
        if not (seen.instance == 2 + slot).any():
            continue
        rows = np.nonzero(seen.instance == 2 + slot)[0]
        assert (layout.kind[rows, slot] >= 0).all()


def test_shortcut_around_bodies_loses_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.data.suites import scene_render

    layout = draw_layouts(12, np.random.default_rng(3))
    quick = cast(layout)[0]
    monkeypatch.setattr(scene_render, "_near", lambda layout, slot, origin, direction: np.broadcast_to(True, origin.shape[:2]))
    full = cast(layout)[0]
    np.testing.assert_array_equal(quick.instance, full.instance)
    np.testing.assert_array_equal(quick.depth, full.depth)


def test_bodies_never_meet() -> None:
    layout = draw_layouts(4000, np.random.default_rng(0))
    reach = layout.half_width * np.where(layout.kind == list(BODIES).index("box"), np.sqrt(2.0), 1.0)
    for one in range(MAX_BODIES):
        for two in range(one):
            both = (layout.kind[:, one] >= 0) & (layout.kind[:, two] >= 0)
            apart = np.linalg.norm(layout.place[:, one] - layout.place[:, two], axis=1)
            assert (apart > reach[:, one] + reach[:, two])[both].all()


def test_suite_has_the_declared_layout() -> None:
    suite = scenes(**SMALL, styles=tuple(STYLES), tasks=tuple(TASKS))
    assert len(suite) == 30
    assert suite.inputs["image"].shape == (30, 32, 32, 3)
    assert suite.inputs["image"].dtype == np.uint8
    assert suite.targets["semantic"].shape == (30, 32, 32)
    assert suite.targets["semantic"].dtype == np.int64
    assert suite.targets["depth"].shape == (30, 1, 32, 32)
    assert suite.targets["depth"].dtype == np.float32
    assert suite.targets["normals"].shape == (30, 3, 32, 32)
    assert suite.task("semantic").classes == CLASSES
    assert [len(rows) for rows in suite.splits.values()] == [20, 4, 6]
    train = suite.targets["depth"][:20]
    assert suite.task("depth").center[0] == pytest.approx(float(train.mean()), rel=1e-4)
    assert suite.task("depth").scale[0] == pytest.approx(float(train.std()), rel=1e-4)
    assert set(suite.raw["factors"]) >= {"camera_height", "light_side", "kind", "num_bodies"}
    assert all(len(values) == 30 for values in suite.raw["factors"].values())
    assert suite.domains == tuple(STYLES)


def test_semantic_and_picture_labels_follow_from_instances() -> None:
    suite = scenes(**SMALL, tasks=("semantic", "main_body", "num_bodies"))
    instance, semantic = suite.raw["instance"], suite.targets["semantic"]
    assert ((instance < 2) == (semantic < 2)).all()
    for row in range(len(suite)):
        bodies, areas = np.unique(instance[row][instance[row] >= 2], return_counts=True)
        classes = {int(body): {int(c) for c in semantic[row][instance[row] == body]} for body in bodies}
        assert all(len(found) == 1 for found in classes.values()), "one class per body"
        assert suite.targets["num_bodies"][row] == len(bodies) - 1
        if len(bodies):
            assert suite.targets["main_body"][row] + 2 in classes[int(bodies[areas.argmax()])]
        else:
            assert suite.targets["main_body"][row] == -1


def edges_by_looking_at_each_pixel(instance: Array, depth: Array) -> Array:
    """Slow and obvious: a pixel is an edge if it is in front of a neighbour that sees something else."""
    found = np.zeros(instance.shape, dtype=np.int64)
    for row, y, x in np.ndindex(*instance.shape):
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            there = (row, y + down, x + right)
            if not (0 <= there[1] < instance.shape[1] and 0 <= there[2] < instance.shape[2]):
                continue
            mine, other = int(instance[row, y, x]), int(instance[there])
            if mine == other:
                continue
            bodies = (mine >= 2) + (other >= 2)
            in_front = mine >= 2 if bodies == 1 else depth[row, 0, y, x] < depth[row, 0, there[1], there[2]]
            found[row, y, x] |= in_front
    return found


def test_edges_agree_with_a_look_at_each_pixel() -> None:
    suite = scenes(num_train=12, num_val=1, num_test=1, tasks=("edges", "depth"), size=24, seed=4)
    instance, edges = suite.raw["instance"], suite.targets["edges"]
    np.testing.assert_array_equal(edges, edges_by_looking_at_each_pixel(instance, suite.targets["depth"]))
    assert set(np.unique(edges)) == {0, 1}
    assert 0.02 < edges.mean() < 0.2


def test_edges_and_offsets_by_hand() -> None:
    instance = np.array([[[1, 1, 1], [2, 2, 3], [0, 0, 3]]])
    depth = np.array([[[9.0, 9.0, 9.0], [4.0, 4.0, 3.0], [3.5, 3.5, 3.0]]])[:, None]
    np.testing.assert_array_equal(occlusion_edges(instance, depth), [[[0, 0, 0], [1, 1, 1], [0, 0, 1]]])
    offsets = centre_offsets(instance) * 3
    nan = np.nan
    np.testing.assert_allclose(offsets[0, 0], [[nan, nan, nan], [0.5, -0.5, 0.0], [nan, nan, 0.0]])
    np.testing.assert_allclose(offsets[0, 1], [[nan, nan, nan], [0.0, 0.0, 0.5], [nan, nan, -0.5]])


def test_offsets_of_a_body_lead_to_one_place_and_tell_bodies_apart() -> None:
    suite = scenes(**SMALL, tasks=("instances",))
    instance, offsets = suite.raw["instance"], suite.targets["instances"]
    assert offsets.dtype == np.float32
    assert (np.isnan(offsets).all(axis=1) == (instance < 2)).all()
    place = np.indices((32, 32))[::-1]
    for row in range(len(suite)):
        aims = (place + 32 * offsets[row]).transpose(1, 2, 0)
        centres = []
        for body in np.unique(instance[row][instance[row] >= 2]):
            own = aims[instance[row] == body]
            assert np.ptp(own, axis=0).max() < 1e-3
            centres.append(own[0])
        assert all(np.linalg.norm(one - two) > 0.5 for i, one in enumerate(centres) for two in centres[:i])
    assert suite.task("instances").scale[0] > 0.05


def test_new_tasks_leave_old_ones_alone() -> None:
    old = scenes(**SMALL)
    new = scenes(**SMALL, tasks=(*old.task_names, "edges", "instances"))
    for name in old.task_names:
        np.testing.assert_array_equal(old.targets[name], new.targets[name])
    np.testing.assert_array_equal(old.inputs["image"], new.inputs["image"])


def test_equal_arguments_give_equal_bits_and_seeds_differ() -> None:
    first, again, other = scenes(**SMALL), scenes(**SMALL), scenes(**SMALL, seed=1)
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()


def test_style_changes_looks_only() -> None:
    plain, night = scenes(**SMALL), scenes(**SMALL, styles=("night",))
    for task in plain.task_names:
        np.testing.assert_array_equal(plain.targets[task], night.targets[task])
    assert plain.inputs["image"].mean() > 1.5 * night.inputs["image"].mean()


def test_colours_do_not_tell_the_class() -> None:
    layout = draw_layouts(4000, np.random.default_rng(1))
    first = layout.colour[:, 2]
    means = np.stack([first[layout.kind[:, 0] == index].mean(axis=0) for index in range(len(BODIES))])
    assert np.ptp(means, axis=0).max() < 0.05


@pytest.mark.parametrize("task", ["semantic", "depth", "edges", "instances", "main_body"])
def test_one_task_per_style(task: str) -> None:
    suite, whole = (
        scene_domains(styles=("plain", "night"), task=task, **SMALL),
        scenes(styles=("plain", "night"), tasks=(task,), **SMALL),
    )
    assert suite.task_names == (f"{task}_plain", f"{task}_night")
    assert suite.domain is not None
    for index, name in enumerate(suite.task_names):
        own = suite.domain == index
        assert suite.targets[name].dtype == whole.targets[task].dtype
        np.testing.assert_array_equal(suite.targets[name][own], whole.targets[task][own])
        assert not labelled_rows(suite.targets[name])[~own].any()


def test_scenes_of_one_body() -> None:
    suite = scenes(**SMALL, max_bodies=1)
    assert (suite.raw["factors"]["num_bodies"] == 1).all()
    assert suite.raw["instance"].max() == 2


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError) as caught:
        scenes(tasks=("corners",), styles=("oil",), size=4, num_train=0, max_bodies=9)
    for part in (
        "unknown task 'corners'",
        "unknown style 'oil'; the styles are plain",
        "at least 8 pixels; got 4",
        "num_train must be at least 1",
        "max_bodies must be 1 to 4; got 9",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="unknown task 'corners'"):
        scene_domains(task="corners")
