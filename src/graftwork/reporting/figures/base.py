"""The one look of all plots: fonts, margins and axes, with colours left to the page's style sheet."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

__all__ = ["DIVERGING", "axis", "layout", "plot_text", "shorten"]

DIVERGING = [[0.0, "var(--worse)"], [0.5, "var(--cell)"], [1.0, "var(--better)"]]
"""Colour scale around zero; orange and blue stay apart for colour-blind readers."""


def plot_text(text: Any) -> str:
    """Escape text that came from the user: plotly reads a subset of HTML in labels.

    Example:
        >>> plot_text("<b>age</b>")
        '&lt;b&gt;age&lt;/b&gt;'
    """
    return html.escape(str(text), quote=False)


def shorten(text: str, length: int = 24) -> str:
    """Cut a label to ``length`` characters, with an ellipsis, so that long names leave room for the plot."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def axis(title: str = "", **settings: Any) -> dict[str, Any]:
    """Return an axis with quiet lines; ``settings`` are plotly's."""
    base: dict[str, Any] = {
        "title": {"text": title, "standoff": 12, "font": {"size": 12}},
        "automargin": True,
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zerolinecolor": "var(--line)",
        "tickfont": {"size": 12},
        "fixedrange": True,
    }
    return {**base, **settings}


def layout(height: int, *, xaxis: Mapping[str, Any], yaxis: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Return a layout of ``height`` pixels on a transparent ground; zooming is off, so that a finger scrolls the page."""
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8, "pad": 4},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "var(--ink-2)"},
        "hoverlabel": {
            "bgcolor": "var(--panel)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)", "size": 13},
            "align": "left",
        },
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "xaxis": dict(xaxis),
        "yaxis": dict(yaxis),
    }
    return {**base, **settings}
