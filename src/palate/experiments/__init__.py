"""Whether it helped: offline comparisons."""
