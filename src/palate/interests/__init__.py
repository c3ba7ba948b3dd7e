"""How tastes are ordered: the tree, its names, transitions, exploration."""
