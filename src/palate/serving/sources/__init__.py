"""Where the candidates of a slate come from: one file a source."""
