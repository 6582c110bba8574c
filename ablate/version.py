"""The version of the distribution and that of its cubes, readable without importing anything."""

__version__ = "0.1.0"

SCHEMA_VERSION = 4
"""Of the cube. Raised when a cube has other groups, variables or axes, or says something else with them: one of another
version is neither read nor believed, but made again from the artifacts."""
