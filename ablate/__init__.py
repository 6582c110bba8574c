"""ablate: a mechanism-isolation ablation engine."""

from ablate.version import __version__

__all__ = ["__version__"]
