"""Principles, and the constitutions composed from them. Knows no model."""
