"""sami_jax: teach a pretrained language model to follow written principles, without preference labels (arXiv 2404.14313)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sami_jax")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"
