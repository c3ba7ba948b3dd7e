"""Who predicts: one file per model."""
