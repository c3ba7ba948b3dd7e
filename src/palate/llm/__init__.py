"""Whom we ask: engines, encoders, the ledger."""
