"""Which texts of a page in a browser are too faint, by the rule of WCAG 2 (AA): 4.5 to 1, and 3 to 1 for large text."""

from __future__ import annotations

from typing import Any

__all__ = ["faint_texts"]

_FAINT = """() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (text) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = text;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const item = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !item.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    // The ground of what is written inside of a plot is drawn, and no style tells its colour.
    if (item.closest("svg.main-svg") && !item.closest(".xtick, .ytick, .xtitle, .ytitle")) continue;
    const style = getComputedStyle(item);
    const grounds = [];
    let opacity = 1;
    for (let node = item; node; node = node.parentElement) {
      const own = getComputedStyle(node), ground = colour(own.backgroundColor);
      opacity *= Number(own.opacity);
      if (ground[3] > 0) grounds.push(ground);
      if (ground[3] > 0.99) break;
    }
    const below = grounds.reverse().reduce((sum, ground) => over(ground, sum), [255, 255, 255]);
    const own = colour(item.ownerSVGElement ? style.fill : style.color);
    const [high, low] = [light(over([...own.slice(0, 3), own[3] * opacity], below)), light(below)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if ((high + 0.05) / (low + 0.05) < (isLarge ? 3 : 4.5)) found.add(`${item.tagName}: ${text.slice(0, 40)}`);
  }
  return [...found];
}"""


def faint_texts(page: Any) -> list[str]:
    """Return tag and beginning of each visible text whose contrast with its ground is too low."""
    return list(page.evaluate(_FAINT))
