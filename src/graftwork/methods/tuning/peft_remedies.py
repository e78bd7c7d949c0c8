"""What to do with adapters of peft that are no plain low-rank difference, in the words of messages."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MERGE", "said_of_setting", "said_of_tensor", "said_of_type"]

MERGE = (
    "let peft write it into its base (PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(out)), and give the "
    "whole model"
)
"""What helps for everything that ends up in weights of the base: `graftwork merge` takes whole models beside adapters."""
_AS_DELTA = "read it as a difference of weights, by delta_from_peft(folder, model)"

_PROMPTS: Mapping[str, str] = {
    "PROMPT_TUNING": "learned tokens in front of the inputs",
    "MULTITASK_PROMPT_TUNING": "learned tokens in front of the inputs",
    "P_TUNING": "learned tokens in front of the inputs",
    "CPT": "learned tokens in front of the inputs",
    "PREFIX_TUNING": "learned keys and values in front of those of each attention",
    "CARTRIDGE": "learned keys and values in front of those of each attention",
}
_SETTINGS: Mapping[str, str] = {
    "bias": f"biases of the base were trained with it, which are no low-rank updates; {MERGE}",
    "lora_bias": f"its updates have biases; {MERGE}",
    "trainable_token_indices": f"rows of an embedding were trained with it, which are no low-rank updates; {MERGE}",
    "target_parameters": f"it updates parameters that are no weights of layers; {MERGE}",
    "layer_replication": f"it belongs to a model that repeats layers of its base; {MERGE}",
    "init_lora_weights": "it changes the base weights too; save the adapter with peft's path_initial_model_for_weight_conversion",
}
_OF_DELTAS: Mapping[str, str] = {
    "modules_to_save": f"layers of the base were trained whole with it, and the tuner goes on with low-rank updates alone; {_AS_DELTA}",
    "use_dora": f"its updates have magnitudes (DoRA), which the tuner does not go on with; {_AS_DELTA}",
    "fan_in_fan_out": f"its weights are transposed, which the tuner does not go on with; {_AS_DELTA}",
    "alpha_pattern": f"its factor differs between layers, which the tuner does not go on with; {_AS_DELTA}",
}


def said_of_type(peft_type: object) -> str:
    """Return what adapters of a kind are and what can be done with them, as the rest of a sentence; empty if that is not known.

    Args:
        peft_type: As the configuration says it.
    """
    if not isinstance(peft_type, str):
        return ""
    if what := _PROMPTS.get(peft_type):
        return (
            f": it holds {what}, which are no difference of weights, so that it can neither be read as one nor merged; use it with peft, "
            "or tune with LoRA"
        )
    if peft_type == "ADAPTION_PROMPT":
        return (
            ": it holds learned tokens that the attention of the last blocks reads beside its own, which are no difference of weights and "
            "cannot be merged; of Llama and Mistral models they are read by prompts_from_peft(folder, model), in "
            "graftwork.methods.tuning.peft_adaption"
        )
    if peft_type == "IA3":
        return "; IA3 is read with its base, by delta_from_peft(folder, model)"
    return f"; where peft can merge this kind, {MERGE}"


def said_of_setting(name: str) -> str:
    """Return what a setting means that is not understood and what to do, as the rest of a sentence; empty if there is no advice."""
    found = _SETTINGS.get(name) or _OF_DELTAS.get(name)
    return f": {found}" if found else ""


def said_of_tensor(key: str) -> str:
    """Return what a tensor is that belongs to no low-rank update of a layer's weight, and what to do, as a clause and a sentence.

    Args:
        key: Its name in the adapter.
    """
    name = key.removeprefix("base_model.model.")
    if ".lora_embedding_" in name:
        what = f"an update of the embedding {name.partition('.lora_embedding_')[0]!r}; only updates of Linear and Conv2d layers are read"
    elif ".lora_" in name:
        what = "no low-rank update of a Linear or Conv2d layer's weight"
    elif "embed" in name:
        what = (
            "a whole tensor of the base that modules_to_save does not name, as peft adds where tokens were added to a vocabulary; if the "
            "embedding was not trained, save the adapter with save_embedding_layers=False"
        )
    else:
        what = "no low-rank update, and modules_to_save does not name it"
    return f"{what}. Otherwise {MERGE}." if "save_embedding_layers" in what else f"{what}. To use it, {MERGE}."
