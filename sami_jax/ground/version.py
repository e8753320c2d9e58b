"""Which sami_jax this is, and where it lies."""

from pathlib import Path

VERSION = "0.1.0.dev0"  # written down here alone: setup.py reads it, docs/release.md says when it changes
PACKAGE = Path(__file__).parent.parent
