"""The chat template of a merged model: one that the file writes out, ChatML, or the one that most of its models have."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from graftwork.workflows.merge_beside import Content, SideFiles

__all__ = ["AUTO", "CHATML", "own_template", "template_fault", "with_template"]

AUTO = "auto"
CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""Messages between the tokens of ChatML, https://github.com/openai/openai-python/blob/v0.28.1/chatml.md."""
_NAMED = {"chatml": CHATML}
_FILE, _CONFIG = "chat_template.jinja", "tokenizer_config.json"


def template_fault(value: Any) -> str:
    """Return what is wrong with ``chat_template`` of a file; empty if it can be used."""
    if isinstance(value, str) and (value == AUTO or value in _NAMED or "{" in value):
        return ""
    return (
        f"must be {AUTO} (the one that most models have), {', '.join(_NAMED)}, or the template itself, in Jinja; got {value!r:.60}. "
        "Of mergekit's other names, write the template out."
    )


def own_template(files: SideFiles) -> str:
    """Return the chat template beside a model, the default one of several; empty if it has none.

    Raises:
        FileFormatError: If a file cannot be read.
    """
    written = files.read(_FILE)
    if written is not None:
        return written.decode("utf-8", errors="replace").strip()
    config = files.json(_CONFIG)
    found = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(found, list):
        # As transformers stores several of them.
        found = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
    if isinstance(found, dict):
        found = found.get("default")
    return found.strip() if isinstance(found, str) else ""


def with_template(files: SideFiles, wanted: str, models: Iterable[SideFiles]) -> tuple[SideFiles, list[str]]:
    """Return the files of a result with the chat template that is asked for, and notes.

    Args:
        files: Beside the result.
        wanted: ``"auto"``, a name, or the template.
        models: Files beside the models, looked at for ``"auto"``; of equally frequent templates the first counts.

    Raises:
        FileFormatError: If a file cannot be read.
    """
    if not any(name.startswith("tokenizer") for name in files.tokenizer):
        return files, ["chat_template: the result has no tokenizer that it could go with, so it is not written."]
    template = _NAMED.get(wanted, wanted)
    if wanted == AUTO:
        counted = Counter(found for one in models if (found := own_template(one)))
        if not counted:
            return files, ["chat_template: auto finds none, since no model has one."]
        template = counted.most_common(1)[0][0]
    kept: dict[str, Content] = {
        name: content for name, content in files.tokenizer.items() if not name.startswith("chat_template")
    }
    kept[_FILE] = template.encode()
    config = files.json(_CONFIG)
    if isinstance(config, dict):
        # Older versions of transformers read it here, newer ones the file of its own.
        changed = {**config, "chat_template": template}
        kept[_CONFIG] = (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
    return dataclasses.replace(files, tokenizer=kept), []
