"""A user's project: palate.yaml, the steps, the report."""
