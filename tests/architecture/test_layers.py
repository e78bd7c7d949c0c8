"""Imports point down the floors of the house, and never in a circle."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest
from source_tree import imports, modules

FLOORS = (
    ("core",),
    ("math",),
    ("data", "interfaces"),
    ("nn", "tasks"),
    ("methods", "evaluation"),
    ("export",),
    ("training",),
    ("domains",),
    ("claims",),
    ("recipes", "reporting", "serving", "nursery"),
    ("workflows",),
    ("cli", "__main__"),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
DATA_ONLY = {"cards", "results"}
"""Folders that hold files, no code."""


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def inner_imports() -> list[tuple[str, str, int]]:
    return [
        (name, item.module, item.line)
        for name, module in modules().items()
        if module.room
        for item in imports(name)
        if item.module == "graftwork" or item.module.startswith("graftwork.")
    ]


def test_every_room_has_a_floor() -> None:
    rooms = {module.room for module in modules().values() if module.room}
    assert rooms - DATA_ONLY <= set(HEIGHT)
    assert len(modules()) > 50, "the walk must see the package"


def test_imports_point_down() -> None:
    wrong = [
        f"{name}:{line} imports {imported}"
        for name, imported, line in inner_imports()
        if room_of(imported) and HEIGHT.get(room_of(imported), -1) > HEIGHT.get(room_of(name), 99)
    ]
    assert not wrong, "\n".join(wrong)


def test_training_and_evaluation_import_no_method() -> None:
    wrong = [
        f"{name}:{line} imports {imported}"
        for name, imported, line in inner_imports()
        if room_of(name) in ("training", "evaluation") and room_of(imported) == "methods"
    ]
    assert not wrong, "methods are handed in through the seams:\n" + "\n".join(wrong)


def test_no_method_room_imports_another() -> None:
    wrong = [
        f"{name}:{line} imports {imported}"
        for name, imported, line in inner_imports()
        if room_of(name) == room_of(imported) == "methods" and name.split(".")[2:3] != imported.split(".")[2:3]
    ]
    assert not wrong, "what two rooms need moves down into math or nn:\n" + "\n".join(wrong)


def test_the_library_imports_no_recipe_by_name() -> None:
    wrong = [
        f"{name}:{line} imports {imported}"
        for name, imported, line in inner_imports()
        if room_of(imported) == "recipes" and room_of(name) != "recipes"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    """Type-only imports count: two modules that need each other's types are one idea in two files."""
    graph = {
        name: {item.module for item in imports(name, with_types=True) if item.module in modules() and item.module != name}
        for name in modules()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")
    assert len(order) == len(graph)


def test_the_walk_sees_imports_inside_functions_but_none_for_type_checkers() -> None:
    inside = [item for item in imports("graftwork.core.seeds") if item.module == "torch"]
    assert inside
    assert not any(item.at_top for item in inside)
