"""Universal self-consistency: the organism reads its candidates and names one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Chat, Decoding, FloatArray, Policy, Pool, Prompt, Scored, scorer

QUESTION = "Which answer is the most consistent with the others? Reply with its number alone."


@scorer
def universal(
    lm: Policy, pool: Pool, *, question: str = QUESTION, max_tokens: Annotated[int, Field(ge=1)] = 8
) -> Scored:
    """1 for the candidate that the organism names as the most consistent, 0 for the others, NaN where it names none.

    ``{argmax: {scorer: universal}}`` is universal self-consistency (Chen et al., 2023). Selectors see arrays only,
    hence the split: the question is a scorer, taking the named one is argmax. All candidates are shown in an order
    shuffled for each prompt. Candidates of one text are named together, and where all are one nothing is asked.

    The log has ``shown`` [P, K], the number under which each candidate was shown, and ``named`` [P], the number that
    was named: without position bias all are named equally often.
    """
    shown: FloatArray = np.full(pool.lengths.shape, np.nan)
    scores, named = np.ones_like(shown), np.full(len(shown), np.nan)
    asked = [i for i, row in enumerate(pool.texts) if len(set(row)) > 1]
    chats = []
    for i in asked:
        order = pool.stream(i).permutation(sorted(range(shown.shape[1]), key=pool.texts[i].__getitem__))
        shown[i, order] = np.arange(1, len(order) + 1)
        listed = "\n".join(f"{number}. {pool.texts[i][at]}" for number, at in enumerate(order, 1))
        chats.append(pool.prompts[i].chat(suffix=f"\n\nAnswers to this:\n{listed}\n\n{question}"))
    for i, reply in zip(asked, _replies(lm, [pool.prompts[i] for i in asked], chats, max_tokens), strict=True):
        found = re.search(r"\d+", reply)
        at = np.flatnonzero(shown[i] == int(found[0])).tolist() if found else []
        scores[i] = [text == pool.texts[i][at[0]] for text in pool.texts[i]] if at else np.nan
        named[i] = shown[i][at[0]] if at else np.nan
    return Scored(scores, {"shown": shown, "named": named})


def _replies(lm: Policy, prompts: Sequence[Prompt], chats: Sequence[Chat], max_tokens: int) -> list[str]:
    if not chats:
        return []
    rng = np.random.default_rng(0)  # greedy decoding draws nothing
    mode = Decoding(temperature=0)
    return [row[0] for row in lm.pool(prompts, rng, k=1, decoding=mode, chats=chats, max_tokens=max_tokens).texts]
