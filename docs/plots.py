"""Plots of evidence as small inline SVG: one strip per inequality, no library, readable in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.formatting import signed_numbers

__all__ = ["evidence_plot"]

_WIDTH, _ROW, _LOOK, _LEFT, _RIGHT = 720, 74, 9, 20, 20
_COLOURS = {"shown": "#1a936f", "refuted": "#c8553d", "open": "#b07d12"}


def evidence_plot(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG: for every inequality the difference of each seed, its mean with interval, zero and the margin, and above it the
    intervals of earlier looks, the first on top.

    Args:
        findings: The list ``inequalities`` of an evidence file.
    """
    rows, top = [], 8
    for finding in findings:
        rows.append(_strip(finding, top))
        top += _ROW + _LOOK * len(_earlier(finding))
    return (
        f'<svg class="evidence-plot" viewBox="0 0 {_WIDTH} {top + 8}" role="img" aria-label="Paired differences per seed" '
        'font-family="inherit" font-size="13" fill="currentColor">' + "".join(rows) + "</svg>"
    )


def _earlier(finding: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(finding.get("looks", []))[:-1]


def _strip(finding: Mapping[str, Any], top: float) -> str:
    interval, differences, state = finding["difference"], list(finding["differences"]), finding.get("state", "open")
    margin = -finding["margin"] if finding["demand"] == "not worse" else finding["margin"]
    # Intervals of early looks may be a thousand times as wide: they are cut off at the ends of the strip.
    low, high = _range([*differences, interval["low"], interval["high"], 0.0, margin])

    def x(value: float) -> float:
        return round(_LEFT + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    def bar(ends: Mapping[str, float], y: float, colour: str, width: float) -> str:
        return (
            f'<line x1="{x(ends["low"])}" x2="{x(ends["high"])}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="{width}" '
            'stroke-opacity="0.55" stroke-linecap="round"/>'
        )

    unit = f" {finding['unit']}" if finding["unit"] else ""
    numbers = _numbers(interval, unit)
    title = f"{state}: {finding['name']}"
    parts = [
        f'<text x="{_LEFT}" y="{top + 14}" font-weight="600">{html.escape(_short(title))}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{top + 14}" text-anchor="end">{html.escape(numbers)}</text>',
    ]
    y = top + 28
    for look in _earlier(finding):
        ends, colour = look["difference"], _COLOURS[look["state"]]
        told = f"after {look['seeds']} seeds {look['state']}: {_numbers(ends, unit)}"
        parts.append(
            f'<g class="look"><title>{html.escape(told)}</title>{bar(ends, y, colour, 3)}'
            f'<circle cx="{x(ends["value"])}" cy="{y}" r="3" fill="{colour}"/>'
            f'<text x="{_WIDTH - _RIGHT + 3}" y="{y + 3}" font-size="9" fill-opacity="0.7">{look["seeds"]}</text></g>'
        )
        y += _LOOK
    y += 12
    parts += [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="currentColor" stroke-opacity="0.25"/>',
        _tick(x(0.0), y, "0", "currentColor", ""),
    ]
    if margin and abs(x(margin) - x(0.0)) > 3:
        parts.append(_tick(x(margin), y, f"{margin:+g}", "currentColor", ' stroke-dasharray="3 2"'))
    parts.append(bar(interval, y, _COLOURS[state], 5))
    parts += [
        f'<circle cx="{x(value)}" cy="{y}" r="3.5" fill="none" '
        f'stroke="currentColor"><title>{value:+.4g}{html.escape(unit)}</title></circle>'
        for value in differences
    ]
    parts.append(f'<circle cx="{x(interval["value"])}" cy="{y}" r="5.5" fill="{_COLOURS[state]}"/>')
    return "".join(parts)


def _numbers(interval: Mapping[str, float], unit: str) -> str:
    value, low, high = signed_numbers(interval["value"], interval["low"], interval["high"])
    return f"{value}{unit} [{low}, {high}]"


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
