"""Label shifts: how candidate answers are proposed. ``none`` is the null level."""

from ablate.factors.label_shifts import decodings, views

__all__ = ["decodings", "views"]
