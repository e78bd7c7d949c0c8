"""Adapters of a language: behind every block, and an invertible one behind the token embedding, as in MAD-X.

Paper: Pfeiffer et al., "MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer", EMNLP 2020,
https://arxiv.org/abs/2005.00052. A task's adapters (:class:`~graftwork.methods.tuning.adapter.Adapters`) are put around those of its
source language, and in another language around those of that one. Departure: adapters stand behind whole blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.adapter import Adapters
from graftwork.nn.grafts import Graft
from graftwork.nn.invertible_adapter import InvertibleAdapter

__all__ = ["LanguageAdapters"]


class LanguageAdapters(Adapters):
    """Bottleneck adapters and an invertible one.

    Args:
        bottleneck: Hidden width of the adapters behind blocks.
        invertible: Hidden width of the invertible adapter.
        embedding: Name of the token embedding.

    Raises:
        ConfigError: On :meth:`attach`, if the model has no such embedding, or its width is odd.
    """

    def __init__(self, *, bottleneck: int = 16, invertible: int = 16, embedding: str = "tokens") -> None:
        super().__init__(bottleneck=bottleneck)
        self.invertible, self.embedding = invertible, embedding

    def make(self, model: nn.Module) -> Mapping[str, Graft]:
        """Return an adapter for each block, and the invertible one."""
        words = dict(model.named_modules()).get(self.embedding)
        if not isinstance(words, nn.Embedding):
            raise ConfigError(
                f"{type(model).__name__} has no embedding {self.embedding!r}; name that of its tokens in `embedding`."
            )
        coupled = InvertibleAdapter(words, width=words.embedding_dim, bottleneck=self.invertible)
        return {**super().make(model), self.embedding: coupled}
