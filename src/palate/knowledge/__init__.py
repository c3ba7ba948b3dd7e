"""What was answered: the store, annotation, distillation, golden labels, controls."""
