"""From how much each task matters to how wide its decoder is. Standard library only.

Rule of "Efficient Controllable Multi-Task Architectures" (Aich et al., ICCV 2023, https://arxiv.org/abs/2308.11744): what
matters more gets a decoder at least as wide, and the decoders that matter least shrink first where the budget is short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

__all__ = ["narrowing_widths"]


def narrowing_widths(levels: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> Iterator[dict[str, float]]:
    """Yield widths by name: first those that the weights ask for, then narrower and narrower ones.

    The first asks of each name the level nearest to ``weight / largest weight`` (of two equally near the narrower one). Then the
    names of the smallest weight shrink, level by level and the widest of them first, down to their narrowest; then those of the
    next weight. A name of a larger weight is never narrower than one of a smaller weight if all have equal levels.

    Args:
        levels: Possible widths of each name, in rising order.
        weights: At least 0, the largest above 0.

    Example:
        >>> list(narrowing_widths({"a": (0.5, 1.0), "b": (0.5, 1.0)}, {"a": 2.0, "b": 1.8}))
        [{'a': 1.0, 'b': 1.0}, {'a': 1.0, 'b': 0.5}, {'a': 0.5, 'b': 0.5}]
    """
    top = max(weights.values())
    places = {
        # `place` breaks ties towards the narrower level.
        name: min(range(len(steps)), key=lambda place: (abs(steps[place] - weights[name] / top), place))
        for name, steps in levels.items()
    }
    yield {name: levels[name][place] for name, place in places.items()}
    # Rising weights: what matters least shrinks first, and down to its narrowest before the next weight is touched.
    for weight in sorted(set(weights.values())):
        group = [name for name in levels if weights[name] == weight]
        while any(places[name] for name in group):
            widest = max(places[name] for name in group)
            places |= {name: places[name] - 1 for name in group if places[name] == widest}
            yield {name: levels[name][place] for name, place in places.items()}
