"""The contracts that any engine, encoder, model or store must pass: subclass one in your tests."""

from __future__ import annotations
