"""Which dotted paths may be imported, and what may be built from them. A path that is refused leaves no trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core import components
from graftwork.core.components import Component, allow_components, allowed_packages, component_of, components_allowed
from graftwork.core.errors import ComponentError, ConfigError
from graftwork.interfaces.merger import Merger

TIES = "graftwork.methods.merging.ties:TiesMerger"
BODY = """
from pathlib import Path
Path(r"{trace}").write_text("imported")
from graftwork.interfaces.merger import Merger
from graftwork.core.components import component_of

class Mean(Merger):
    def __init__(self, scale=1.0):
        self.scale = scale
    def merge_tensor(self, name, base, experts):
        return base
    def settings(self):
        return {{}}

class Abstract(Merger):
    pass

class Outer:
    Inner = Mean

def make(scale=2.0):
    return Mean(scale)

@component_of(Merger)
def marked(scale=2.0):
    return Mean(scale)

@component_of(Merger)
def wrong():
    return "no merger"
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Packages ``my_mergers`` and ``graftwork_evil`` on the import path; the file returned appears when one is imported."""
    trace = tmp_path / "trace"
    for package in ("my_mergers", "graftwork_evil", "evil"):
        folder = tmp_path / "packages" / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("", encoding="utf-8")
        (folder / "x.py").write_text(BODY.format(trace=trace), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield trace
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_mergers", "graftwork_evil", "evil")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "builtins:eval",
        "subprocess:run",
        "graftwork_evil.x:Mean",
        "evil.x:Mean",
        "evil:x",
        "evil.x:Outer.Inner",
        ".evil.x:Mean",
        "graftwork..evil:Mean",
        "graftwork.core.optional:require",
        "graftwork.core.files:write_text",
        "graftwork.core.files:os",
        "graftwork.core.records:Plan",
        "graftwork.core.components:allow_components",
        "graftwork.core.seeds:Seeds.__init__.__globals__",
        "graftwork.core.seeds:__builtins__",
        "graftwork.core.seeds:__loader__",
        "graftwork.__main__:main",
        "graftwork:fit",
        "graftwork.interfaces.merger:Merger",
        "graftwork.no_such_module:X",
        "graftwork.core.seeds:NoSuchThing",
        "graftwork.core.seeds",
        "graftwork",
        ":",
        "",
        "graftwork.core.seeds:",
        "graftwork.core.seeds:Seeds:x",
        "graftwork.core.seeds :Seeds",
        "graftwork.core\n.seeds:Seeds",
    ],
)
@pytest.mark.parametrize("seam", [Merger, None])
def test_what_is_no_component_is_refused(path: str, seam: type | None, foreign: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(ComponentError) as caught:
        Component(path, {"command": f"touch {foreign}", "path": str(foreign), "text": "x"}).build(seam=seam)
    assert repr(path) in str(caught.value)
    assert not foreign.exists()
    assert not [name for name in set(sys.modules) - before if not name.startswith("graftwork.")]


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_text_leads_out_of_the_package(module: str, name: str) -> None:
    path = f"{module}:{name}"
    with pytest.raises(ComponentError):
        Component(path).resolve(Merger)


def test_the_refusal_names_path_and_remedy(foreign: Path) -> None:
    with pytest.raises(
        ComponentError, match=r"'my_mergers\.x:Mean' is not part of graftwork.*--allow-components my_mergers"
    ) as caught:
        Component("my_mergers.x:Mean").resolve(Merger)
    assert 'allow_components=["my_mergers"]' in str(caught.value)
    assert components.GROUP in str(caught.value)
    assert not foreign.exists()
    assert caught.value.exit_code == 2


def test_a_component_of_another_seam_is_refused() -> None:
    torch = pytest.importorskip("torch")
    from graftwork.interfaces.balancer import Balancer

    with pytest.raises(ComponentError, match=r"is no component of the seam Balancer.*graftwork\.interfaces\.balancer\.Balancer"):
        Component(TIES).resolve(Balancer)
    assert Component(TIES).resolve(Merger) is Component(TIES).resolve()
    assert torch is not None


def test_packages_are_allowed_by_name_for_a_block(foreign: Path) -> None:
    with components_allowed("my_mergers"):
        assert allowed_packages() == ("my_mergers",)
        with components_allowed(["my_mergers", "evil.other"]):
            assert allowed_packages() == ("my_mergers", "evil.other")
            with pytest.raises(ComponentError, match=r"--allow-components evil"):
                Component("evil.x:Mean").resolve(Merger)
        built = Component("my_mergers.x:Mean", {"scale": 3.0}).build(seam=Merger)
        assert built.scale == 3.0
        assert isinstance(built, Merger)
    assert allowed_packages() == ()
    with pytest.raises(ComponentError):
        Component("my_mergers.x:Mean").resolve(Merger)


def test_what_an_allowed_package_holds_must_fit_too(foreign: Path) -> None:
    with components_allowed("my_mergers.x"):
        assert Component("my_mergers.x:marked", {"scale": 4.0}).build(seam=Merger).scale == 4.0
        with pytest.raises(ComponentError, match="a function marked with graftwork.core.components.component_of"):
            Component("my_mergers.x:make").resolve(Merger)
        with pytest.raises(ComponentError, match="does not implement merge_tensor"):
            Component("my_mergers.x:Abstract").resolve(Merger)
        with pytest.raises(ComponentError, match="built a str, which is no Merger"):
            Component("my_mergers.x:wrong").build(seam=Merger)
        with pytest.raises(ComponentError, match=r"There is no 'Mena' in 'my_mergers\.x'\. Did you mean 'Mean'\?"):
            Component("my_mergers.x:Mena").resolve(Merger)
        with pytest.raises(ComponentError, match="There is no module 'my_mergers.x.y'"):
            Component("my_mergers.x.y:Mean").resolve(Merger)
        with pytest.raises(ComponentError, match="--allow-components"):
            Component("my_mergers:Mean").resolve(Merger)


def test_a_package_is_allowed_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_allowed", [])
    allow_components("one", "two.three")
    allow_components("one")
    assert allowed_packages() == ("one", "two.three")


@pytest.mark.parametrize("name", ["", "my-methods", "a..b", "_a", "a b", "os:system", "../x", 3, "a,b"])
def test_a_name_that_is_no_package_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match="allowed by the name of an importable package"), components_allowed([name]):  # type: ignore[list-item]
        pass
    assert allowed_packages() == ()


def test_installed_packages_allow_themselves_by_an_entry_point(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = foreign.parent / "packages" / "my_mergers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-mergers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graftwork.components]\nmine = my_mergers.x\nodd = not/a/name\n")
    components._installed_packages.cache_clear()
    try:
        assert [point.name for point in metadata.entry_points(group=components.GROUP)] == ["mine", "odd"]
        assert isinstance(Component("my_mergers.x:Mean").build(seam=Merger), Merger)
        with pytest.raises(ComponentError):
            Component("my_mergers:x").resolve(Merger)
    finally:
        components._installed_packages.cache_clear()


def test_an_error_inside_a_component_is_not_hidden(foreign: Path) -> None:
    (foreign.parent / "packages" / "my_mergers" / "needy.py").write_text("import no_such_package_at_all\n")
    with components_allowed("my_mergers"), pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        Component("my_mergers.needy:X").resolve(Merger)


@pytest.mark.parametrize(
    "value", [3, None, [], {}, {"settings": {}}, {"path": 1}, {"path": "a:B", "setings": {}}, {"path": "a:B", "settings": [1]}]
)
def test_data_that_describe_no_component_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="component"):
        Component.from_json(value)  # type: ignore[arg-type]


def test_a_component_survives_json() -> None:
    one = Component("a.b:C", {"x": 1})
    assert Component.from_json(one.to_json()) == one
    assert Component.from_json("a.b:C") == Component("a.b:C")


def test_a_mark_does_not_change_the_function() -> None:
    def function() -> int:
        return 3

    assert component_of(Merger)(function) is function
