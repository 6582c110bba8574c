"""Label shifts that change how tokens are chosen, not what the model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from ablate.api import Decoding, Policy, Pool, Prompt, concatenated, label_shift
from ablate.errors import StudyError

Temperature = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Width = Annotated[int, Field(ge=2)]


@label_shift
def none(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
    """The organism's own answers to the prompts as they stand, at T = 1 without truncation (the null level)."""
    return lm.pool(prompts, rng, k=k)


@label_shift
def greedy(lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int) -> Pool:
    """The most probable token at every step: one candidate, whatever number is asked for."""
    return lm.pool(prompts, rng, k=1, decoding=Decoding(temperature=0))


@label_shift
def temperature(
    lm: Policy, prompts: Sequence[Prompt], rng: np.random.Generator, *, k: int, temperature: Temperature = 0.7
) -> Pool:
    """Tokens from p^(1/T), renormalized: below T = 1 sharper than the organism, above flatter."""
    return lm.pool(prompts, rng, k=k, decoding=Decoding(temperature))


@label_shift
def nucleus(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    temperature: Temperature = 1.0,
    top_p: Share = 0.9,
) -> Pool:
    """Temperature, then the smallest set of tokens that holds ``top_p`` of the probability (Holtzman et al., 2020)."""
    return lm.pool(prompts, rng, k=k, decoding=Decoding(temperature, top_p))


@label_shift
def beam(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    width: Width = 4,
    length_penalty: float = 1.0,
) -> Pool:
    """The best ``k`` of ``width`` beams by log p / length^``length_penalty`` (Wu et al., 2016); nothing is drawn."""
    return lm.pool(prompts, rng, k=k, decoding=Decoding(beams=width, length_penalty=length_penalty))


@label_shift
def diverse_beam(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    width: Width = 4,
    groups: Width = 4,
    penalty: Annotated[float, Field(ge=0)] = 0.5,
) -> Pool:
    """Beams in groups that pay ``penalty`` nats for a token that groups before took (Vijayakumar et al., 2018)."""
    if width % groups:
        raise StudyError(f"diverse_beam: a width of {width} is not {groups} groups of one size")
    return lm.pool(prompts, rng, k=k, decoding=Decoding(beams=width, groups=groups, penalty=penalty))


@label_shift
def mixed_decoding(
    lm: Policy,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    k: int,
    temperature: Temperature = 0.8,
    top_p: Share = 0.9,
    width: Width = 4,
) -> Pool:
    """The greedy answer, ``k`` - 2 draws of a nucleus, the best of ``width`` beams (dual decoding: k = 3).

    At k = 2 there is no draw, at k = 1 the greedy answer alone.
    """
    pools = [greedy(lm, prompts, rng, k=1)]
    if k > 2:
        pools.append(nucleus(lm, prompts, rng, k=k - 2, temperature=temperature, top_p=top_p))
    if k > 1:
        pools.append(beam(lm, prompts, rng, k=1, width=width))
    return concatenated(pools)
