"""What happened: tables, ids, queries, readers, checks, splits."""
