"""Pure functions on arrays: ranking and rating metrics, agreement, bootstrap."""
