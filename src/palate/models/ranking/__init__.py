"""Ranking models: whether this user will like this item, over shared features and blocks; one small file each."""
