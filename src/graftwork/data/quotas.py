"""Quotas of a step: how many labelled and unlabelled rows, of which data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from graftwork.core.errors import ConfigError
from graftwork.data.names import did_you_mean

__all__ = ["Quota", "Role", "parse_quotas"]

Role = Literal["labelled", "unlabelled"]
_KEYS = ("rows", "role", "domain")


@dataclass(frozen=True, slots=True)
class Quota:
    """So many rows of every step."""

    rows: int
    """At least 1; where the data have fewer, all of them are in every step."""
    role: Role = "labelled"
    """``labelled`` rows have a label of some task, ``unlabelled`` ones of none: losses of tasks leave them out, objectives see
    them."""
    domain: str = ""
    """Name of the data set or domain that they come from; empty means all of them, mixed as ``mixing`` says."""

    def __str__(self) -> str:
        return f"{self.rows} {self.role} rows" + (f" of {self.domain!r}" if self.domain else "")


def parse_quotas(value: Any) -> tuple[Quota, ...]:
    """Read quotas from plain data, as plans and files hold them: ``[{"role": "labelled", "rows": 64}, {"role": "unlabelled",
    "rows": 64}]``.

    Args:
        value: A list of mappings with ``rows`` and, if need be, ``role`` and ``domain``, or of :class:`Quota`; empty asks for
            nothing.

    Raises:
        ConfigError: If an entry cannot be read, no labelled rows are asked for, or two entries ask for the same rows; all
            problems at once.

    Example:
        >>> [str(quota) for quota in parse_quotas([{"rows": 8}, {"rows": 4, "role": "unlabelled", "domain": "night"}])]
        ['8 labelled rows', "4 unlabelled rows of 'night'"]
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"quotas must be a list such as [{{'role': 'unlabelled', 'rows': 64}}]; got {value!r}.")
    problems: list[str] = []
    quotas = [item if isinstance(item, Quota) else _parse(item, number, problems) for number, item in enumerate(value)]
    read = [quota for quota in quotas if quota is not None]
    places = [(quota.role, quota.domain) for quota in read]
    for role in get_args(Role):
        if places.count((role, "")) and len([place for place in places if place[0] == role]) > 1:
            problems.append(f"quotas ask for {role} rows of all domains and of single ones; the same rows would be dealt twice.")
    problems += [
        f"quotas ask twice for {role} rows of {domain!r}."
        for role, domain in sorted(set(places))
        if domain and places.count((role, domain)) > 1
    ]
    if value and not problems and not any(quota.role == "labelled" for quota in read):
        problems.append("quotas need labelled rows: without any, no task is learned.")
    if problems:
        raise ConfigError("The quotas of a step cannot be used.", problems)
    return tuple(read)


def _parse(item: Any, number: int, problems: list[str]) -> Quota | None:
    where = f"quotas[{number}]"
    if not isinstance(item, Mapping):
        problems.append(f"{where} must be a mapping with 'rows', 'role' and 'domain'; got {item!r}.")
        return None
    count = len(problems)
    for key in item:
        if key not in _KEYS:
            problems.append(f"{where} has no {key!r}.{did_you_mean(str(key), _KEYS)} Known keys: {', '.join(_KEYS)}.")
    rows, role, domain = item.get("rows"), item.get("role", "labelled"), item.get("domain", "")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        problems.append(f"{where}: rows must be an integer of at least 1; got {rows!r}.")
    if role not in get_args(Role):
        problems.append(f"{where}: role must be one of {', '.join(get_args(Role))}; got {role!r}.")
    if not isinstance(domain, str):
        problems.append(f"{where}: domain must be the name of a data set; got {domain!r}.")
    if len(problems) > count:
        return None
    assert isinstance(rows, int)
    return Quota(rows, role, domain)
