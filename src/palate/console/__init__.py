"""Pages that read what the API reads."""
