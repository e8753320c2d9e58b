"""One decoder-only transformer for all families, its adapters, and models read from Hugging Face folders."""
