"""Label shifts: how candidate answers are proposed. ``none`` is the null level."""

from ablate.factors.label_shifts import contexts, decodings, views

__all__ = ["contexts", "decodings", "views"]
