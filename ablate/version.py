"""The version of the distribution, readable without importing anything."""

__version__ = "0.1.0"
