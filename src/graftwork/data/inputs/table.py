"""The columns of a table.

Arrays: ``numeric`` float32 ``[N, F]`` and ``categorical`` int64 ``[N, C]``, code 0 for missing or unseen. Sizes: ``num_numeric``,
``cardinalities``, the layout of behaviour sequences if there are any (:mod:`graftwork.nn.fields`), and ``trunk``: which network
reads them (see :func:`graftwork.nn.backbones.scratch.table_trunk`).
"""

from graftwork.core.input_kinds import InputKind

__all__ = ["KIND"]

KIND = InputKind(
    name="table",
    noun="rows of a table",
    example="rows.csv",
    encoder="graftwork.data.encoders.table:TableEncoder",
    trunk="graftwork.nn.backbones.scratch:table_trunk",
    trunk_summary="numbers and category embeddings, new",
    reader="graftwork.serving.reading:TableReader",
    batch_size=128,
    predicted_rows=4096,
    positions=True,
)
