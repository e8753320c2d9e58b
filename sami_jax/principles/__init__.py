"""Principles: their files, what people decide about them, and the constitutions composed from them. Knows no model."""
