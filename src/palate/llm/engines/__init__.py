"""One file per way to reach a model; the files do not know each other."""
