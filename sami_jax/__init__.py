"""sami_jax: teach a pretrained language model to follow written principles, without preference labels (arXiv 2404.14313)."""

__version__ = "0.1.0.dev0"  # the one place of the version: setup.py reads it here, docs/release.md says when it changes
