"""Palate puts what a large language model knows into a recommender, and proves what it was worth."""

__version__ = "0.1.0"
