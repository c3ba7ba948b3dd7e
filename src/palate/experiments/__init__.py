"""Whether it helped: offline comparisons, experiments on people, worlds to test in."""
