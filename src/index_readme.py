"""Makes the README that a package index shows; hatchling calls it when it builds the package.

Relative pictures and links work in a clone only. Where ``pyproject.toml`` names a repository they lead there; where it names none,
pictures are left out and links become their text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface as _Base
except ImportError:  # tests read this file without the build tool
    _Base = object  # type: ignore[assignment, misc]

__all__ = ["IndexReadme", "index_readme"]

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+://|#)([^)\s]+)\)")


def index_readme(text: str, repository: str = "") -> str:
    """Return a README without relative links.

    Args:
        text: Markdown.
        repository: Address of the repository, without a slash at its end; empty if there is none.

    Example:
        >>> index_readme("See [the guide](docs/guide.md).\\n\\n![A picture](docs/a.png)\\n\\nEnd.")
        'See the guide.\\n\\nEnd.'
        >>> index_readme("![A picture](docs/a.png)", "https://example.org/x")
        '![A picture](https://example.org/x/raw/HEAD/docs/a.png)'
    """

    def changed(found: re.Match[str]) -> str:
        mark, words, path = found.groups()
        if repository:
            return f"{mark}[{words}]({repository}/{'raw' if mark else 'blob'}/HEAD/{path})"
        return "" if mark else words

    return re.sub(r"\n{3,}", "\n\n", _LINK.sub(changed, text))


class IndexReadme(_Base):
    """Sets the field ``readme`` of the package's metadata."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the README for indexes into the metadata, in place."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        urls = metadata.get("urls") or {}
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": index_readme(text, str(urls.get("Repository") or "").rstrip("/")),
        }
