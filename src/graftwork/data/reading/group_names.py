"""What the name of a column says about its values: persons, places, kinds of things, or ids."""

from __future__ import annotations

import re

__all__ = ["is_count_name", "is_group_name", "is_id_name", "is_kind_name", "is_person_name", "plain_name"]

_PEOPLE = (
    "patient|pat|subject|subj|person|people|participant|proband|individual|user|customer|client|student|pupil|child|speaker|"
    "animal|mouse|donor|household|house|home|author|rater|volunteer"
)
_PLACES = (
    "teacher|site|hospital|clinic|school|store|shop|session|family|group|device|sensor|machine|batch|plate|slide|farm|doctor|"
    "company|visit|study|centre|center|building|apartment|station"
)
_KINDS = (
    "model|make|brand|manufacturer|vendor|type|kind|class|category|species|breed|variety|genre|product|item|article|sku|part|"
    "title|job|occupation|city|town|region|state|country|county|province|district|area|zip|zipcode|postcode|neighbo[u]?rhood|"
    "location|place|street|language|nation|year|month|week|weekday|date|day|hour|quarter|period|season|colo[u]?r|grade|level|"
    "rank|size"
)
_SUFFIX = r"(_?(id|no|nr|num|number|code|key|name))?$"
_PERSON_NAME = re.compile(rf"(^|_)({_PEOPLE})s?{_SUFFIX}")
_GROUP_NAME = re.compile(rf"(^|_)({_PEOPLE}|{_PLACES})s?{_SUFFIX}")
_KIND_NAME = re.compile(rf"(^|_)({_KINDS})s?{_SUFFIX}")
_COUNT_NAME = re.compile(rf"(^|_)({_PEOPLE}|{_PLACES})s$")
_ID_NAME = re.compile(r"(^|_)(id|uuid|guid|key|index|idx|row|rownames|rowid|no|nr|number|code|unnamed_\d+)$")


def plain_name(name: str) -> str:
    """Return a name in lower case with its words separated by ``_``.

    Example:
        >>> plain_name("patientId"), plain_name("Subject No."), plain_name("subject#")
        ('patient_id', 'subject_no', 'subject_no')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("#", "_no").replace("№", "_no")
    return re.sub(r"[\W_]+", "_", spaced).strip("_").lower()


def is_group_name(name: str) -> bool:
    """Return whether a name says that equal values belong together: a patient, a site, a device."""
    return _GROUP_NAME.search(plain_name(name)) is not None


def is_count_name(name: str) -> bool:
    """Return whether a name is the plural of a group: numbers in such a column (``visits``, ``users``) count and do not name.

    Example:
        >>> is_count_name("visits"), is_count_name("visit"), is_count_name("users_id")
        (True, False, False)
    """
    return _COUNT_NAME.search(plain_name(name)) is not None


def is_id_name(name: str) -> bool:
    """Return whether a name says that a column names rows or things: an id, a key, a number."""
    return _ID_NAME.search(plain_name(name)) is not None


def is_person_name(name: str) -> bool:
    """Return whether a name says a person, an animal or a household."""
    return _PERSON_NAME.search(plain_name(name)) is not None


def is_kind_name(name: str) -> bool:
    """Return whether a name says a kind of thing, a region or a time, of which new rows will have the known ones."""
    return _KIND_NAME.search(plain_name(name)) is not None
