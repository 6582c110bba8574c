"""An organism's or run's weights as an adapter that PEFT loads; needs no torch."""

from __future__ import annotations

from typing import Any

from ablate.api import Weights


def adapter_config(weights: Weights, base: str) -> dict[str, Any]:
    """What `adapter_config.json` says beside these LoRA factors, which are PEFT's own `adapter_model.safetensors`.

    Their scaling is folded into B, so alpha is the rank.

    Args:
        weights: LoRA factors by PEFT's names, ``base_model.model.<layer>.lora_A.weight`` [rank, in] and B.
        base: Hub id of the base model.

    Raises:
        ValueError: no LoRA factors, or factors of several ranks.
    """
    ranks = {value.shape[0] for name, value in weights.items() if ".lora_A." in name}
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in weights if ".lora_" in name}
    if len(ranks) != 1:
        raise ValueError(f"an adapter has LoRA factors of one rank, these have {sorted(ranks)}")
    (rank,) = ranks
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(layers),
        "inference_mode": True,
    }
