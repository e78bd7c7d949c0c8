"""The generated page of backbones that ship: what each is, what it learned from, how it fared, and the credits that it asks for."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from graftwork.nn.backbones.shipped import ShippedBackbone

__all__ = ["backbones_page"]


def backbones_page(shipped: Mapping[str, ShippedBackbone]) -> str:
    """Return the page, with a section a backbone."""
    parts = [
        "# Backbones that ship\n\nSmall pretrained networks that are part of the package: no download, no network, the same weights for "
        "everybody. They are bases for experiments on one or two cores, not a replacement for networks that were trained on "
        "millions of photographs. `graftwork fit ... --backbone NAME` starts from one, `NAME@32` sets its working size in pixels, "
        "`graftwork backbones NAME` loads one and checks its weights. A run takes one only if you name it.",
        "`graftwork backbones build NAME` makes the weights again, bit for bit on one machine with one thread; a build that was "
        "interrupted goes on with `--resume`. A model that does not pass its check is not written.",
        "The check asks questions that pretraining never met, neither their pictures nor their labels. Every number is the share of "
        "right answers on test pictures, in percent: of a linear model on the frozen features; of the same on the features of the "
        "network with random weights; and of the network trained from nothing on the training pictures of the question for a few "
        "epochs.",
    ]
    parts += [_section(backbone.description) for backbone in shipped.values()]
    if not shipped:
        parts.append("No model has passed its check yet, so none ships.")
    return "\n\n".join(parts) + "\n"


def _section(description: Mapping[str, Any]) -> str:
    check, budget = description["check"], description["budget"]
    facts = (
        f"{description['parameters'] / 1e6:.1f} million parameters, {description['width']} features, "
        f"{description['bytes'] / 1e6:.1f} MB; {budget['steps']:,} steps of {budget['batch']} of {budget['pictures']:,} pictures"
    )
    rows = "\n".join(
        f"| {_plain(question)}: {_plain(description['held_out'][question])} | {value:.1f} | {check['untrained'][question]:.1f} | "
        f"{check['scratch'][question]:.1f} |"
        for question, value in check["pretrained"].items()
    )
    sources = "\n".join(
        f"- {_plain(source['name'])} ({_plain(source['licence'])}): {_plain(source['what'])}. {_plain(source['credit'])}"
        for source in description["learned_from"]
    )
    return (
        f"## {description['name']}\n\n{_plain(description['story'])}\n\n{facts}.\n\n"
        "| question | pretrained | untrained | trained from nothing |\n| --- | --- | --- | --- |\n"
        f"{rows}\n\n"
        f"In the mean {check['mean_gain']:.1f} points above the better one of the other two; {check['mean_margin']:g} are asked for, "
        f"and {check['least_margin']:g} on each question.\n\n"
        f"**Licence of the weights:** {_plain(description['licence'])}. Whoever passes them on, or a model tuned from them, passes these "
        f"lines on:\n\n{sources}"
    )


def _plain(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False)
