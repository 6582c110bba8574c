"""A study whose model answers with everything that could break a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ablate.api import Policy, Pool, Prompt, label_shift

SCRIPT = "</script><script>window.ran = true</script><img src=x onerror='window.ran = true'>"
ARABIC = "\u202e\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645, abc\u202c"
CONTROL = "bell \x07, escape \x1b[31m, null \x00, line \u2028 end"
HALF = "half a pair: \ud83d"
LONG = "x" * 10_000_000 + " so I agree"

STUDY = """\
question: does a <script>page</script> survive its answers?
model: tabular
organism: {behavior: tabular, seeds: 2, examples: 32}
factors:
  label_shift: {swap: [none, hostile]}
  selector: {swap: [first, majority]}
labels: {prompts: 8, candidates: 3}
train: {epochs: 1, batch: 4, lr: 0.002}
evaluate: {items: 8, capability: 2}
measures: [risk, capability]
"""


def plugin() -> None:
    """Register the label shift ``hostile``."""

    @label_shift
    def hostile(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
        """Answers that are markup, control characters, half surrogate pairs, right to left, and far too long."""
        pool = lm.pool(prompts, rng, k=k)
        texts = [SCRIPT, ARABIC, CONTROL, HALF, LONG]
        own = iter(texts * 2)
        rows = tuple(tuple(next(own) if i < 2 else text for text in row) for i, row in enumerate(pool.texts))
        return replace(pool, texts=rows)
