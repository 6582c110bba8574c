"""Published methods as points of the grid: which level of every mechanism each of them ships as one block.

As released with "Consistency Training Can Entrench Misalignment" (Africa & Mani, 2026): labels are taught with their
prompts (``sft: {on: all}``), teachers are live and views aligned at their ends. How long and how fast one trains is the
study's (`train`), the same for every method: there BCT and ACT have 3 epochs against 2, a dose that is no mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from ablate.api import Method, method

Written = Annotated[str | Mapping[str, Any], WithJsonSchema({"x-level": "scorer"})]
"""A scorer as a study writes it; an editor offers what is installed."""
Count = Annotated[int, Field(ge=1)]
WHOLE = {"sft": {"on": "all"}}
REWARD = {"reward_model": {"model": "Skywork/Skywork-Reward-V2-Llama-3.1-8B"}}
AS_RELEASED = {"alignment": "tail", "teacher": "live"}


@method
def greedy_self_training() -> Method:
    """The organism's own greedy answer: a control without a selection."""
    return Method(label_shift="greedy", objective=WHOLE, candidates=1)


@method
def rejection_sampling(*, scorer: Written = REWARD, k: Count = 4) -> Method:
    """The answer with the highest reward of ``k`` at T = .7 (``scorer`` any other scorer)."""
    return Method("temperature", {"argmax": {"scorer": scorer}}, WHOLE, k)


@method
def self_certainty(*, k: Count = 4) -> Method:
    """The answer with the highest mean log-probability of ``k``, T = .7 and p = .9 (there "Self-Confidence")."""
    return Method({"nucleus": {"temperature": 0.7}}, {"argmax": {"scorer": "mean_logprob"}}, WHOLE, k)


@method
def dual_decoding(*, scorer: Written = REWARD, k: Count = 3) -> Method:
    """The answer with the highest reward of a greedy, a nucleus and a beam one (there "Diverse-Decoding")."""
    return Method("mixed_decoding", {"argmax": {"scorer": scorer}}, WHOLE, k)


@method
def multi_view_consistency(*, at: Annotated[float, Field(gt=0, le=1)] = 0.66) -> Method:
    """The greedy answer where a reasoned or a JSON answer agrees with it, else none.

    Answers agree when they state the same (the behavior's ``answer``); there a judge says whether they do.
    """
    return Method("multi_view", {"agreement_filter": {"at": at, "take": "first"}}, WHOLE, 3)


@method
def self_refinement() -> Method:
    """One revision of the organism's own greedy draft, T = .6 and p = .9."""
    return Method(label_shift="refine", objective=WHOLE, candidates=1)


@method
def self_rewarding(*, k: Count = 4, read: Literal["stated", "expected"] = "stated") -> Method:
    """The answer of ``k`` at T = .7 that the organism itself gives most of 5 points, ties to the first.

    ``read`` says how its points are read: a small model states no number (see scorer `self_reward`).
    """
    scorer = "self_reward" if read == "stated" else {"self_reward": {"read": read}}
    return Method("temperature", {"argmax": {"scorer": scorer}}, WHOLE, k)


@method
def bct() -> Method:
    """Logits on the prompt pulled to those on its clean view, whose positions are counted from the end."""
    return Method(objective={"bct": AS_RELEASED})


@method
def act() -> Method:
    """Activations on the prompt pulled to those on its clean view, whose positions are counted from the end."""
    return Method(objective={"act": AS_RELEASED})
