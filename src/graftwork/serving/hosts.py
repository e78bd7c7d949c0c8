"""By which names a server answers. A page in a browser can give its own name an address of this machine (DNS rebinding) and then read
what a server there answers; the ``Host`` header of its requests tells. Standard library only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from graftwork.core.errors import ConfigError

__all__ = ["AllowedHosts"]

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HEADER = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+?)\.?(?::\d{1,5})?")
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]|\*")


class AllowedHosts:
    """Names of this machine, and of a proxy in front of it.

    Args:
        names: Names and addresses without port, ``*.example.org`` for all names below one, ``*`` for any; beside them the names of
            the loopback address and the address that is listened on are always allowed.
        bound: The address that is listened on; of all addresses (``0.0.0.0``, ``::``), the one that a connection came to.

    Raises:
        ConfigError: If one is no name.

    Example:
        >>> hosts = AllowedHosts(["*.example.org"], "10.0.0.7")
        >>> [hosts.allow(name) for name in ("localhost:8000", "10.0.0.7", "a.example.org", "example.com", "")]
        [True, True, True, False, False]
    """

    def __init__(self, names: Sequence[str] = (), bound: str = "127.0.0.1") -> None:
        cleaned = [_bracketed(name.strip().lower()) for name in names]
        wrong = [name for name, clean in zip(names, cleaned) if not _NAME.fullmatch(clean)]
        if wrong:
            raise ConfigError(
                f"These are no names of hosts: {', '.join(map(repr, wrong))}. Give names without scheme, port and path, as in "
                "example.org, *.example.org or 10.0.0.7; * allows every name."
            )
        self._any = "*" in cleaned
        self._endings = tuple(name[1:] for name in cleaned if name.startswith("*."))
        self.names = tuple(dict.fromkeys((*_LOOPBACK, _bracketed(bound), *cleaned)))
        """All that are allowed."""
        self._listens_to_all = _is_unspecified(bound)

    def allow(self, header: str, local: str = "") -> bool:
        """Return whether requests with this ``Host`` are answered.

        Args:
            header: The value of the header.
            local: The address of this machine that the connection came to; empty if it is not known.
        """
        if self._any:
            return True
        found = _HEADER.fullmatch(header.lower())
        if found is None:
            return False
        name = found[1]
        if name in self.names or (self._endings and name.endswith(self._endings)):
            return True
        # A name that leads here can be anybody's, an address cannot.
        # Where both protocols are listened to, an address of the old one comes as `::ffff:192.0.2.7`.
        return self._listens_to_all and bool(local) and name == _bracketed(local.removeprefix("::ffff:"))


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def _is_unspecified(bound: str) -> bool:
    try:
        return ipaddress.ip_address(bound).is_unspecified
    except ValueError:
        return False
