"""Hugging Face models: the only part of the project that imports torch."""
