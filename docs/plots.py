"""Plots of evidence as small inline SVG: one strip per inequality, no library, readable in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["evidence_plot"]

_WIDTH, _ROW, _LEFT, _RIGHT = 720, 74, 20, 20
_GOOD, _BAD = "#1a936f", "#c8553d"


def evidence_plot(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG: for every inequality the difference of each seed, its mean with interval, zero and the margin.

    Args:
        findings: The list ``inequalities`` of an evidence file.
    """
    rows = [_strip(finding, 8 + index * _ROW) for index, finding in enumerate(findings)]
    height = 16 + len(rows) * _ROW
    return (
        f'<svg class="evidence-plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Paired differences per seed" '
        'style="max-width:100%;height:auto" font-family="inherit" font-size="13" fill="currentColor">' + "".join(rows) + "</svg>"
    )


def _strip(finding: Mapping[str, Any], top: float) -> str:
    interval, differences = finding["difference"], list(finding["differences"])
    margin = -finding["margin"] if finding["demand"] == "not worse" else finding["margin"]
    low, high = _range([*differences, interval["low"], interval["high"], 0.0, margin])

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    y = top + 40
    colour = _GOOD if finding["holds"] else _BAD
    unit = f" {finding['unit']}" if finding["unit"] else ""
    numbers = f"{interval['value']:+.3g}{unit} [{interval['low']:+.3g}, {interval['high']:+.3g}]"
    title = f"{'holds' if finding['holds'] else 'does not hold'}: {finding['name']}"
    parts = [
        f'<text x="{_LEFT}" y="{top + 14}" font-weight="600">{html.escape(_short(title))}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{top + 14}" text-anchor="end">{html.escape(numbers)}</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="currentColor" stroke-opacity="0.25"/>',
        _tick(x(0.0), y, "0", "currentColor", ""),
    ]
    if margin and abs(x(margin) - x(0.0)) > 3:
        parts.append(_tick(x(margin), y, f"{margin:+g}", "currentColor", ' stroke-dasharray="3 2"'))
    parts.append(
        f'<line x1="{x(interval["low"])}" x2="{x(interval["high"])}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="5" '
        'stroke-opacity="0.55" stroke-linecap="round"/>'
    )
    parts += [
        f'<circle cx="{x(value)}" cy="{y}" r="3.5" fill="none" '
        f'stroke="currentColor"><title>{value:+.4g}{html.escape(unit)}</title></circle>'
        for value in differences
    ]
    parts.append(f'<circle cx="{x(interval["value"])}" cy="{y}" r="5.5" fill="{colour}"/>')
    return "".join(parts)


def _tick(x: float, y: float, text: str, colour: str, style: str) -> str:
    return (
        f'<line x1="{x}" x2="{x}" y1="{y - 12}" y2="{y + 12}" stroke="{colour}" stroke-opacity="0.6"{style}/>'
        f'<text x="{x}" y="{y + 24}" font-size="11" text-anchor="middle" fill-opacity="0.7">{html.escape(text)}</text>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _short(text: str, limit: int = 62) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
