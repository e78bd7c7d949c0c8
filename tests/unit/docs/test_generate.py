from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import graftwork
from graftwork.cli.plans import plan_text
from graftwork.core.cards import Card, load_cards
from graftwork.core.errors import ConfigError
from graftwork.core.verdicts import EVIDENCE_FORMAT, EXPLANATION, VERDICT_WORDS
from graftwork.nn.backbones.shipped import shipped_backbones
from graftwork.workflows.portfolio import load_catalogue


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(generator.generate(tmp_path_factory.mktemp("docs") / "generated"))


def test_every_system_has_a_page(pages: list[Path]) -> None:
    assert [page.name for page in pages[:4]] == ["gallery.md", "plans.md", "backbones.md", "api.md"]
    assert {page.stem for page in pages[4:]} == set(load_cards())


def test_every_public_name_is_in_the_reference(pages: list[Path]) -> None:
    text = pages[3].read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### gw\.(\w+)\n(.*?)(?=^### |^## |\Z)", text, flags=re.DOTALL | re.MULTILINE))
    assert set(entries) == {name for name in graftwork.__all__ if not name.startswith("_")}
    for name, entry in entries.items():
        item = getattr(graftwork, name)
        first = " ".join((inspect.getdoc(item) or "").split("\n\n")[0].split())
        assert first, f"{name} has no docstring"
        words = re.sub(r"[^A-Za-z ]", " ", re.sub(r":\w+:`[^`]*`|`[^`]*`", "", first)).split()
        assert set(words) <= set(re.sub(r"[^A-Za-z ]", " ", entry).split()), name
        if not inspect.isclass(item):
            shown = re.search(r"```python\n(.*?)```", entry, flags=re.DOTALL)
            assert shown is not None
            assert all(f"{one}" in shown[1] for one in inspect.signature(item).parameters), name
    assert "class gw.FileFormatError(gw.DataError)" in entries["FileFormatError"]
    assert "class gw.DataError(gw.GraftworkError, ValueError)" in entries["DataError"]
    for parameter in inspect.signature(graftwork.fit).parameters:
        assert f"- `{parameter}`: " in entries["fit"] or f"- `**{parameter}`: " in entries["fit"], parameter
    for member in ("FitRun.leaderboard(", "Predictor.predict(source, ", "Suite.task_names`", "MultiTaskEstimator.fit("):
        assert f"`{member}" in text, member
    # Nothing that changes from build to build, and no markup of another system.
    assert " at 0x" not in text
    assert not re.search(r":(class|func|meth|mod|data|attr):`", text)


def test_every_plan_is_on_the_page_of_plans(pages: list[Path]) -> None:
    text = pages[1].read_text(encoding="utf-8")
    for name, entry in load_catalogue().items():
        assert f"### {name}\n" in text
        assert plan_text(entry) in text


def test_built_systems_come_first_in_the_gallery(pages: list[Path]) -> None:
    verdicts = re.findall(r'data-verdict="([a-z ]+)"', pages[0].read_text(encoding="utf-8"))
    first_planned = verdicts.index("planned")
    assert first_planned > 0
    assert set(verdicts[first_planned:]) == {"planned"}


def test_only_generated_pages_are_removed(generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "load_cards", lambda: dict(list(load_cards().items())[:2]))
    (tmp_path / "guide.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not a folder of generated pages.*it holds guide\.md.*--out"):
        generator.generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["guide.md"]
    out = tmp_path / "new"
    first = generator.generate(out)
    (out / "systems" / "gone.md").write_text("a page of a system that is gone")
    (out / "mine.md").write_text("mine")
    assert generator.generate(out) == first
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.md")}
    assert found == {page.relative_to(out).as_posix() for page in first} | {"mine.md"}


def test_links_of_pages_lead_somewhere(pages: list[Path], repository: Path) -> None:
    checked = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'href="([^"]+)"', text):
            if link.startswith("https://"):
                continue
            if link.startswith("#"):
                assert f"\n### {link[1:]}\n" in text, f"{page.name}: {link}"
                continue
            target = (page.parent / link).with_suffix(".md")
            guide = repository / "docs" / target.name
            assert target.exists() or (guide.exists() and target.resolve().parent == pages[0].parent.parent), (
                f"{page.name}: {link}"
            )
            checked += 1
    assert checked > 3 * 142


def test_gallery_lists_everything_with_its_filters(pages: list[Path]) -> None:
    text = pages[0].read_text(encoding="utf-8")
    for card in load_cards().values():
        assert f'href="systems/{card.slug}.html"' in text
        assert f'<option value="{card.room}">' in text
        assert f'<option value="{card.status}">' in text
    assert "<script src" not in text, "the gallery works without a network"


def finding(**changes: Any) -> dict[str, Any]:
    values = {
        "name": "beats <it>",
        "state": "shown",
        "reason": "the interval lies above 0",
        "primary": True,
        "demand": "better",
        "left": "mine.score",
        "right": "base.score",
        "left_mean": 2.0,
        "right_mean": 1.0,
        "difference": {"value": 1.0, "low": 0.5, "high": 1.5},
        "differences": [0.8, 1.2],
        "margin": 0.5,
        "signs": 2,
        "unit": "points",
    }
    return {**values, **changes}


def built_card(monkeypatch: pytest.MonkeyPatch, status: str) -> Card:
    card = Card(
        slug="toy",
        title="Toy *method*",
        year=2020,
        room="merging",
        kind="method",
        summary="s",
        claim="a | b",
        components=("graftwork.core.seeds:Seeds",),
        recipe="graftwork.core.cards",
    )
    evidence = {
        "format": EVIDENCE_FORMAT,
        "verdict": "mixed",
        "reason": "of 2 primary inequalities 1 shown, 1 refuted, after 2 of at most 2 seeds",
        "looks": [2],
        "inequalities": [finding(), finding(name="second", state="refuted", margin=0.0)],
        "arms": [{"name": "mine", "title": "the method"}],
        "seeds": [0, 1],
        "seconds": 90,
        "created": "2025-01-01T00:00:00",
        "commit": "0123456789abcdef",
        "dirty": True,
        "versions": {"graftwork": "0.1.0"},
        "notes": ["scaled down"],
    }
    card.__dict__.update(evidence=evidence, status=status)
    return card


def test_evidence_is_shown_with_plot_and_numbers(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    page = generator.system_page(built_card(monkeypatch, "mixed"), [])
    assert page.count("<svg") == 1
    assert "beats &lt;it&gt;" in page
    assert "+1.00 points | +0.50 to +1.50 | 2/2" in page
    assert "**refuted**" in page
    assert 'verdict-mixed">mixed</span> of 2 primary inequalities 1 shown, 1 refuted' in page
    assert "commit `0123456789ab` with local changes" in page
    assert "### `Seeds`" in page
    assert "`Seeds()` in `graftwork.core.seeds`" in page
    assert "A root seed from which independent named streams are derived." in page
    assert "Toy \\*method\\*" in page
    assert "a \\| b" in page


def test_a_pilot_alone_is_no_evidence_yet(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    card = built_card(monkeypatch, "no evidence")
    card.__dict__["evidence"] = {"format": EVIDENCE_FORMAT, "slug": "toy", "pilot": {"chosen": {}}}
    assert "## Evidence" not in generator.system_page(card, [])


def test_pilot_headroom_and_curves_are_told(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    card = built_card(monkeypatch, "mixed")
    assert "declares no grids" in generator.system_page(card, [])
    assert "does not say whether they had converged" in generator.system_page(card, [])
    trials = [{"settings": {"rate": rate}, "mean": rate} for rate in (1, 2, 3)]
    card.__dict__["evidence"] |= {
        "pilot": {
            "seeds": [100],
            "score": ["accuracy"],
            "arms": {"mine": {"trials": trials, "chosen": {"rate": 2}}},
            "follows": {"half": "mine"},
            "fixed": {"oracle": "it knows"},
        },
        "headroom": [
            {
                "state": "refuted",
                "bound": "oracle.score",
                "baseline": "base.score",
                "needed": 2.0,
                "unit": "points",
                "difference": {"value": 0.5, "low": 0.25, "high": 0.75},
            }
        ],
        "convergence": {"arms": {"mine": {}}, "warnings": ["arm 'mine': accuracy still rising at the end in 2 of 2 seeds"]},
    }
    page = generator.system_page(card, [])
    assert "- `mine` takes rate 2, the best of 3 settings\n" in page
    assert "| `mine` | rate 3 | 3.000 |" in page.partition("<details")[2]
    assert "- `half` takes what `mine` chose" in page
    assert "Headroom refuted: oracle.score is ahead of base.score by 0.5 points (0.25 to 0.75); at least 2 are needed" in page
    assert "Warning: arm 'mine': accuracy still rising at the end in 2 of 2 seeds." in page


def test_stale_evidence_is_marked(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "so it is no verdict" in generator.system_page(built_card(monkeypatch, "stale"), [])


def test_plot_places_values_in_order(generator: ModuleType) -> None:
    plot = generator.evidence_plot([finding()])
    places = [float(value) for value in re.findall(r'<circle cx="([\d.]+)"', plot)]
    assert places[0] < places[2] < places[1], "0.8, then the mean 1.0, then 1.2"
    assert "stroke-dasharray" in plot, "the margin is drawn"


def test_looks_are_a_forest_of_intervals(generator: ModuleType) -> None:
    def look(seeds: int, low: float, high: float, state: str) -> dict[str, Any]:
        return {"seeds": seeds, "difference": {"value": 1.0, "low": low, "high": high}, "state": state}

    looks = [look(3, -900.0, 900.0, "open"), look(5, -0.5, 2.5, "open"), look(8, 0.5, 1.5, "shown")]
    plot = generator.evidence_plot([finding(looks=looks)])
    assert plot.count('<g class="look">') == 2, "the last look is the interval of the strip itself"
    assert "after 3 seeds open: +1 points [-900, +900]" in plot
    # The widest interval ends at the edges of the strip, and the strip stays readable.
    ends = [float(end) for end in re.findall(r'x[12]="([-\d.]+)"', plot)]
    assert min(ends) >= 20
    assert max(ends) <= 700


def test_the_gallery_explains_its_words_first(pages: list[Path]) -> None:
    first = pages[0].read_text(encoding="utf-8").partition('<div class="gallery">')[0]
    assert all(word in first for word in VERDICT_WORDS)
    assert len(EXPLANATION) == 3
    # In three sentences, before the list and behind a click; what the page is for comes first.
    assert re.sub(r"\s+", " ", first).count(" ".join(EXPLANATION)) == 1
    opening = first.partition("<details")[0]
    assert "published systems of multi-task and transfer learning" in opening
    assert len(opening.split()) < 100


def test_plot_of_equal_differences_is_drawn(generator: ModuleType) -> None:
    zero = finding(differences=[0.0, 0.0], difference={"value": 0.0, "low": 0.0, "high": 0.0}, margin=0.0)
    assert "nan" not in generator.evidence_plot([zero])


@pytest.mark.slow
def test_site_builds_strictly_and_needs_no_network(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("material")
    shutil.copytree(repository / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("generated", "__pycache__"))
    shutil.copy(repository / "mkdocs.yml", tmp_path)
    subprocess.run([sys.executable, str(tmp_path / "docs" / "generate.py")], check=True, capture_output=True)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    html = list((tmp_path / "site").rglob("*.html"))
    assert len(html) > 150
    for page in html:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'(?:<script[^>]*src|<link[^>]*stylesheet[^>]*href)="https?://[^"]+"', text), page


def test_backbones_that_ship_have_numbers_and_credits(pages: list[Path]) -> None:
    text = pages[2].read_text(encoding="utf-8")
    for name, shipped in shipped_backbones().items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        description = shipped.description
        assert f"{description['parameters'] / 1e6:.1f} million parameters" in section
        for question, accuracy in description["check"]["pretrained"].items():
            assert re.search(rf"^\| {question}: .* \| {accuracy:.1f} \|", section, flags=re.MULTILINE)
        for source in description["learned_from"]:
            assert source["credit"] in section
        assert f"Licence of the weights:** {description['licence']}" in section
    assert ("No model has passed its check yet" in text) is not bool(shipped_backbones())
