"""Queries, prompt templates, generated pairs, and batches of token ids. Knows no model."""
