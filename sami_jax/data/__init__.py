"""Queries, prompt templates, generated pairs, and batches and packed rows of token ids. Knows no model."""
