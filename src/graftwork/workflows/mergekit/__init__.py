"""YAML files of mergekit, read as they are: which tensors of which models go into each tensor of the result, by which rule.

Written from the format's documentation; nothing of mergekit is needed or copied.
"""

from __future__ import annotations

from graftwork.workflows.mergekit.run import merge_from_yaml
from graftwork.workflows.mergekit.schema import MergeFile, read_merge_documents

__all__ = ["MergeFile", "merge_from_yaml", "read_merge_documents"]
