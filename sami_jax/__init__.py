"""sami_jax: teach a pretrained language model to follow written principles, without preference labels (arXiv 2404.14313)."""
