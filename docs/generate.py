"""Writes the generated part of the documentation: a gallery of all systems, a page and a plot for each, a page of plans, one of the
backbones that ship, and the reference of the Python names.

Sources are the cards, the evidence files and the docstrings; only what ``import graftwork`` offers is imported. Run ``make docs``, or::

    python docs/generate.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import ast
import html
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from api_pages import api_page
from backbone_pages import backbones_page
from plan_pages import plans_page
from plots import evidence_plot

from graftwork.core.cards import ROOMS, STATUSES, Card, load_cards
from graftwork.core.files import write_json, write_text
from graftwork.core.folders import FolderKind, claim_folder, remove_own
from graftwork.core.source_hash import module_file
from graftwork.core.verdicts import EXPLANATION
from graftwork.nn.backbones.shipped import shipped_backbones
from graftwork.reporting.formatting import plain_numbers, signed_numbers
from graftwork.workflows.portfolio import load_catalogue

__all__ = ["generate", "main"]

_KIND = FolderKind(marker=".generated.json", format="graftwork-docs-1", noun="a folder of generated pages")


def escape(text: str) -> str:
    """Return ``text`` so that Markdown and HTML show it as it is."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def generate(out: Path) -> list[Path]:
    """Write the gallery, the plans, the backbones, the Python reference and one page per system below ``out``, and return their paths, the gallery first.

    Pages of systems that are gone are removed; a folder that is neither empty nor of generated pages is refused.
    """
    claim_folder(out, _KIND).release()
    write_json(out / _KIND.marker, {"format": _KIND.format})
    cards = list(load_cards().values())
    pages = {
        out / "gallery.md": gallery_page(cards),
        out / "plans.md": plans_page(load_catalogue().values()),
        out / "backbones.md": backbones_page(shipped_backbones()),
        out / "api.md": api_page(),
    }
    for card in cards:
        pages[out / "systems" / f"{card.slug}.md"] = system_page(card, cards)
    for path, text in pages.items():
        write_text(path, text)
    for old in (out / "systems").glob("*.md"):
        if old not in pages:
            remove_own(out, f"systems/{old.name}")
    return list(pages)


def gallery_page(cards: list[Card]) -> str:
    """Return the page with all systems: search, and filters by room and verdict, in the reader's browser."""
    counts = Counter[str](card.status for card in cards)
    summary = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    built = sum(card.is_built for card in cards)
    rows = "\n".join(_gallery_row(card) for card in sorted(cards, key=_built_first))
    rooms = _options([room for room in ROOMS if any(card.room == room for card in cards)])
    explanation = " ".join(escape(sentence) for sentence in EXPLANATION)
    verdicts = _options([status for status in STATUSES if counts[status]])
    return f"""---
hide: [toc]
---
# Systems

{len(cards)} published systems of multi-task and transfer learning. {built} are built: each has code and a recipe that tests the paper's claim
here. The others are described, with what would have to hold.

Of them: {summary}.

<details markdown="1"><summary>What the verdicts mean</summary>

{explanation} [How verdicts are made](../verdicts.md).

</details>

<div class="gallery">
<p>
<input id="gallery-words" type="search" placeholder="words, slug, arXiv number" aria-label="Search the systems">
<select id="gallery-room" aria-label="Room"><option value="">all rooms</option>{rooms}</select>
<select id="gallery-verdict" aria-label="Verdict"><option value="">all verdicts</option>{verdicts}</select>
<span id="gallery-count" aria-live="polite">{len(cards)} systems</span>
</p>
<table>
<thead><tr><th>system</th><th>room</th><th>year</th><th>verdict</th><th>what it does</th></tr></thead>
<tbody id="gallery-rows">
{rows}
</tbody>
</table>
</div>

{_SCRIPT}
"""


def _built_first(card: Card) -> tuple[bool, str, str]:
    return card.status == "planned", card.room, card.slug


def _gallery_row(card: Card) -> str:
    words = " ".join((card.slug, card.title, card.arxiv, card.room, card.kind, *card.tags, card.summary)).lower()
    return (
        f'<tr data-room="{card.room}" data-verdict="{card.status}" data-words="{html.escape(words)}">'
        f'<td><a href="systems/{card.slug}.html"><b>{card.slug}</b></a><br><small>{html.escape(card.title)}</small></td>'
        f"<td>{card.room}</td><td>{card.year}</td><td>{_badge(card.status)}</td><td>{html.escape(card.summary)}</td></tr>"
    )


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{name}">{name}</option>' for name in names)


def _badge(status: str) -> str:
    return f'<span class="verdict verdict-{status.replace(" ", "-")}">{status}</span>'


def system_page(card: Card, cards: list[Card]) -> str:
    """Return the page of one system: paper, claim, evidence with plot, parts with their docstrings, neighbours."""
    paper = f"[{'arXiv:' + card.arxiv if card.arxiv else 'paper or code'}]({card.link})" if card.link else ""
    parts = [
        # Of what a search finds, guides come first, and systems without code last.
        f"---\ntitle: {card.slug}\nsearch:\n  boost: {0.5 if card.is_built else 0.2}\n---\n# {escape(card.title)}",
        f'`{card.slug}` · <a href="../gallery.html?room={card.room}">{card.room}</a> · {card.kind} · '
        f"{card.year}{' · ' + paper if paper else ''} · {_badge(card.status)}",
        escape(card.summary),
        f"## Claim\n\n{escape(card.claim)}",
    ]
    if card.paper_claim:
        parts.append(f"The paper: {escape(card.paper_claim)}")
    if card.is_built:
        parts.append(f"```bash\ngraftwork reproduce {card.slug}\n```")
    if card.is_built and card.evidence is not None and card.has_run:
        parts.append(_evidence_section(card, card.evidence))
        parts.append(_bullets("What was tried", card.analysis))
    elif not card.is_built:
        parts.append(
            f"!!! note\n\n    Planned: no code yet. `graftwork new method {card.room} {card.slug}` starts it, "
            f"see [adding a system](../../adding-a-system.md)."
        )
    parts += [_bullets("Essential points", card.essentials), _bullets("Departures from the paper", card.departures)]
    if card.components or card.recipe:
        parts.append(_parts_section(card))
    if card.plans:
        names = ", ".join(f"`{plan['name']}`" for plan in card.plans)
        parts.append(f"## In the race\n\n`graftwork fit --plans +{card.plans[0]['name']}` lets it compete. Plans: {names}.")
    parts.append(_neighbours(card, cards))
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(title: str, texts: tuple[str, ...]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {escape(text)}" for text in texts) if texts else ""


def _evidence_section(card: Card, evidence: Mapping[str, Any]) -> str:
    findings = evidence["inequalities"]
    lines = ["## Evidence", ""]
    if card.status == "stale":
        lines += [f"!!! warning\n\n    Stale, so it is no verdict: {card.stale_reason}.", ""]
    else:
        lines += [f"{_badge(card.status)} {escape(evidence['reason'])}.", ""]
    lines += [
        '<figure class="evidence"><div class="evidence-strips" tabindex="0" role="group" aria-label="Differences of every seed">',
        evidence_plot(findings),
        "</div><figcaption>One strip for each inequality. Open circles: the difference in every seed. Filled circle and thick bar: "
        "their mean and its 95 % interval. Solid tick: no difference; dashed tick: the margin that is asked for. Thin bars above, with "
        "the number of seeds: what earlier looks showed. Green is shown, red refuted, yellow open. The table has the "
        "numbers.</figcaption></figure>",
        "",
        "| | inequality | left | right | difference | 95 % interval | seeds above 0 |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for item in findings:
        interval = item["difference"]
        left, right = plain_numbers(item["left_mean"], item["right_mean"], digits=4)
        value, low, high = signed_numbers(interval["value"], interval["low"], interval["high"])
        lines.append(
            f"| {_state(item)} | "
            f"{escape(item['name'])}{'' if item['primary'] else ' (secondary)'}<br>"
            f"<small>{escape(item['left'])} over {escape(item['right'])}, {item['demand']}, margin {item['margin']:g}: "
            f"{escape(item['reason'])}</small> "
            f"| {left} | {right} | {value} {escape(item['unit'])} | {low} to {high} | {item['signs']}/{len(item['differences'])} |"
        )
    lines += _pilot_lines(evidence.get("pilot"))
    lines += _headroom_lines(evidence.get("headroom", []))
    lines += _convergence_lines(evidence.get("convergence"))
    arms = "; ".join(f"`{arm['name']}`: {escape(arm['title'])}" for arm in evidence["arms"])
    commit = (
        f"commit `{str(evidence['commit'])[:12]}`{' with local changes' if evidence['dirty'] else ''}"
        if evidence["commit"]
        else "no commit"
    )
    versions = ", ".join(f"{name} {version}" for name, version in evidence["versions"].items())
    lines += ["", f"Arms: {arms}.", ""]
    lines += [
        f"Seeds {', '.join(map(str, evidence['seeds']))}; looks after {', '.join(map(str, evidence.get('looks', ['?'])))} seeds; "
        f"{float(evidence['seconds']) / 60:.1f} minutes of computing; "
        f"{str(evidence['created'])[:10]}; {commit}; {escape(versions)}."
    ]
    return "\n".join(lines + [f"\n- {escape(note)}" for note in evidence["notes"]])


def _pilot_lines(pilot: Mapping[str, Any] | None) -> list[str]:
    if pilot is None:
        return ["", "The recipe declares no grids: how the settings of its arms were found is in its docstring below."]
    lines = ["", f"Pilot on the seeds {', '.join(map(str, pilot['seeds']))}, by {escape(', '.join(pilot['score']))}:", ""]
    rows = []
    for arm, entry in pilot["arms"].items():
        trials = entry["trials"]
        what = f"the best of {len(trials)} settings" if len(trials) > 1 else "the only setting that was tried"
        lines.append(f"- `{arm}` takes {escape(_settings(entry['chosen']))}, {what}")
        scores = plain_numbers(*(trial["mean"] for trial in trials), digits=4)
        rows += [
            f"| `{arm}` | {escape(_settings(trial['settings']))} | {score} |" for trial, score in zip(trials, scores, strict=True)
        ]
    lines += [f"- `{arm}` takes what `{other}` chose" for arm, other in pilot["follows"].items()]
    lines += [f"- `{arm}` is not tuned: {escape(why)}" for arm, why in pilot["fixed"].items()]
    if rows:
        lines += ["", '<details markdown="1"><summary>All settings that were tried</summary>', ""]
        lines += ["| arm | settings | score |", "|---|---|---:|", *rows, "", "</details>"]
    return lines


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _convergence_lines(convergence: Mapping[str, Any] | None) -> list[str]:
    if convergence is None:
        return ["", "Curves of the trainings were not recorded in this run, so it does not say whether they had converged."]
    warnings = [f"- Warning: {escape(warning)}." for warning in convergence["warnings"]]
    return ["", *(warnings or (["No arm was still improving when it was measured."] if convergence["arms"] else []))]


def _headroom_lines(headroom: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for item in headroom:
        ahead, unit = item["difference"], f" {escape(item['unit'])}" if item["unit"] else ""
        lines.append(
            f"- Headroom {item['state']}: {escape(item['bound'])} is ahead of {escape(item['baseline'])} by {ahead['value']:.3g}{unit} "
            f"({ahead['low']:.3g} to {ahead['high']:.3g}); at least {item['needed']:.3g} are needed."
        )
    return ["", *lines] if lines else []


def _state(finding: Mapping[str, Any]) -> str:
    state = finding.get("state", "not judged")
    return f"**{state}**" if state == "refuted" else str(state)


def _parts_section(card: Card) -> str:
    lines = ["## Parts", ""]
    for path in card.components:
        signature, text = _docstring(path)
        lines += [
            f"### `{path.partition(':')[2]}`",
            "",
            f"`{signature}` in `{path.partition(':')[0]}`",
            "",
            f"```text\n{text}\n```",
            "",
        ]
    if card.recipe:
        lines += ["### Recipe", "", f"`{card.recipe}`", "", f"```text\n{_docstring(card.recipe)[1]}\n```", ""]
    for label, names in (("Seams", card.seams), ("Extras", card.extras)):
        if names:
            lines += [f"{label}: {', '.join(f'`{name}`' for name in names)}.", ""]
    return "\n".join(lines).rstrip()


def _docstring(path: str) -> tuple[str, str]:
    """Return name with arguments, and docstring, of a dotted path (or of a whole module), read from the source."""
    module, _, name = path.partition(":")
    tree = ast.parse(module_file(module).read_text(encoding="utf-8"))
    if not name:
        return module, ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            text = ast.get_docstring(node) or ""
            function = node if isinstance(node, ast.FunctionDef) else _constructor(node)
            arguments = ast.unparse(function.args).removeprefix("self, ").removeprefix("self") if function else ""
            return f"{name}({arguments})", text
    return name, ast.get_docstring(tree) or ""


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)


def _neighbours(card: Card, cards: list[Card]) -> str:
    others = [other for other in cards if other.room == card.room and other.slug != card.slug]
    others.sort(key=lambda other: (-len(set(other.tags) & set(card.tags)), other.slug))
    links = [f"[{other.slug}]({other.slug}.md)" for other in others[:6]]
    return f"## Nearby\n\n{', '.join(links)}" if links else ""


_SCRIPT = """<script>
(function () {
  const words = document.getElementById("gallery-words");
  const room = document.getElementById("gallery-room");
  const verdict = document.getElementById("gallery-verdict");
  const count = document.getElementById("gallery-count");
  const rows = Array.from(document.querySelectorAll("#gallery-rows tr"));
  function filter() {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = (!room.value || row.dataset.room === room.value)
        && (!verdict.value || row.dataset.verdict === verdict.value)
        && wanted.every(function (word) { return row.dataset.words.includes(word); });
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = shown + (shown === 1 ? " system" : " systems");
  }
  // A link such as gallery.html?room=merging opens the gallery with that choice made.
  const asked = new URLSearchParams(location.search);
  for (const [name, control] of [["words", words], ["room", room], ["verdict", verdict]]) {
    if (asked.get(name)) { control.value = asked.get(name); }
  }
  [words, room, verdict].forEach(function (control) { control.addEventListener("input", filter); });
  filter();
})();
</script>"""


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description="Write the generated pages of the documentation.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "generated", help="folder to write to")
    pages = generate(parser.parse_args().out)
    print(f"{len(pages)} pages in {pages[0].parent}")


if __name__ == "__main__":
    main()
