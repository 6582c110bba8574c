"""Cubes to tables of numbers: contrasts, decomposition, tests and verdicts. No plotting, no YAML, no disk."""

from __future__ import annotations

from ablate.effects.comparison import compared
from ablate.effects.contrasts import contrasts
from ablate.effects.controls import controls, organisms
from ablate.effects.covariate import adjusted_contrasts, freedman_lane
from ablate.effects.decomposition import decomposition
from ablate.effects.dose import dose_response, lmg
from ablate.effects.intervals import Interval, t_interval, tost
from ablate.effects.itemnoise import item_noise
from ablate.effects.labels import label_terms
from ablate.effects.linear import anova, ss
from ablate.effects.mediation import mediated, mediation
from ablate.effects.method_verdicts import method_verdicts
from ablate.effects.methods import isolated, methods
from ablate.effects.missing import bounds, failure_check, missing
from ablate.effects.prediction import prediction
from ablate.effects.price import kitagawa, price_terms
from ablate.effects.reml import variance_components
from ablate.effects.signflip import SignFlip, sign_flip, smallest_p
from ablate.effects.stability import stability
from ablate.effects.tables import caption, fixed_table
from ablate.effects.transmission import split_half_selection, transmission, transmitted
from ablate.effects.variance import variance
from ablate.effects.verdict import Gate, Verdict, verdict

__all__ = [
    "Gate",
    "Interval",
    "SignFlip",
    "Verdict",
    "adjusted_contrasts",
    "anova",
    "bounds",
    "caption",
    "compared",
    "contrasts",
    "controls",
    "decomposition",
    "dose_response",
    "failure_check",
    "fixed_table",
    "freedman_lane",
    "isolated",
    "item_noise",
    "kitagawa",
    "label_terms",
    "lmg",
    "mediated",
    "mediation",
    "method_verdicts",
    "methods",
    "missing",
    "organisms",
    "prediction",
    "price_terms",
    "sign_flip",
    "smallest_p",
    "split_half_selection",
    "ss",
    "stability",
    "t_interval",
    "tost",
    "transmission",
    "transmitted",
    "variance",
    "variance_components",
    "verdict",
]
