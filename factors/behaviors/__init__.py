"""Behaviors: what organisms are induced to do, and how it is recognized."""

from ablate.factors.behaviors import spurious_correlation, sycophancy, tabular

__all__ = ["spurious_correlation", "sycophancy", "tabular"]
