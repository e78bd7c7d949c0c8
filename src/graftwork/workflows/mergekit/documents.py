"""Several documents in one file: which of them is the result, and in which order the others are merged before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graftwork.core.errors import ConfigError
from graftwork.workflows.mergekit.references import stage_of
from graftwork.workflows.mergekit.schema import MergeFile

__all__ = ["merge_order"]


def merge_order(documents: Sequence[MergeFile]) -> tuple[list[MergeFile], list[str]]:
    """Return the documents in the order in which they are merged, the one that is the result last.

    That is the document without a name; if all have one, the last of the file. Names lead to the results of other documents.

    Args:
        documents: All documents, as they stand in the file.

    Returns:
        The documents, without those that the result does not need; and notes on these.

    Raises:
        ConfigError: If two have one name, two have none, or some need each other in a circle; with all such faults and their lines.
    """
    result = next((document for document in documents if not document.name), documents[-1])
    # A file with one document may have a name, and be called as one of its models is.
    named = {document.name: document for document in documents if document.name} if len(documents) > 1 else {}
    problems = _doubled(documents)
    if problems:
        raise ConfigError(f"{result.path} cannot be used.", problems)
    order: list[MergeFile] = []
    _visit(result, named, [], order)
    left = [document for document in documents if document not in order]
    notes = [f"line {_line(item)}: nothing needs the document {item.name!r}; it is not merged." for item in left]
    return order, notes


def _doubled(documents: Sequence[MergeFile]) -> list[str]:
    problems, seen = [], dict[str, int]()
    for document in documents:
        line = _line(document)
        if document.name in seen:
            what = f"another document is called {document.name!r}" if document.name else "another document has no name either"
            remedy = "Give it a name of its own." if document.name else "Give a name to all but the one that is the result."
            problems.append(f"{document.path.name}, line {line}, name: {what}, in line {seen[document.name]}. {remedy}")
        seen.setdefault(document.name, line)
    return problems


def _visit(document: MergeFile, named: Mapping[str, MergeFile], path: Sequence[MergeFile], order: list[MergeFile]) -> None:
    """Put a document behind all that it needs."""
    if any(document is item for item in order):
        return
    for reference in document.references:
        name = stage_of(reference, named)
        if not name:
            continue
        needed, around = named[name], [*path, document]
        if any(needed is item for item in around):
            circle = around[next(place for place, item in enumerate(around) if item is needed) :]
            chain = " needs ".join(repr(item.name) for item in (*circle, needed))
            line = document.model_lines.get(reference, _line(document))
            raise ConfigError(
                f"{document.path} cannot be used.",
                [f"{document.path.name}, line {line}: {chain}; a document cannot be made from its own result."],
            )
        _visit(needed, named, around, order)
    order.append(document)


def _line(document: MergeFile) -> int:
    return document.lines.get("name", document.lines.get("(document)", 1))
