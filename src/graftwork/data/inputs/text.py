"""Texts as token numbers.

Arrays: ``tokens`` int64 ``[N, L]`` of the suite's own tokenizer, 0 for padding; or ``token_ids`` and ``attention_mask``, int64
``[N, L]``, of a pretrained backbone's tokenizer. Sizes: ``vocabulary_size``, ``max_length`` (``L``).
"""

from graftwork.core.input_kinds import InputKind

__all__ = ["KIND"]

KIND = InputKind(
    name="text",
    noun="texts",
    example="texts.jsonl",
    encoder="graftwork.data.encoders.text:TextEncoder",
    trunk="graftwork.nn.backbones.scratch:text_trunk",
    trunk_summary="token embeddings and a small encoder, new",
    reader="graftwork.serving.reading:TextReader",
    tuned_rate=0.1,
)
