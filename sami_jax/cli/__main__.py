import sys

from sami_jax.cli import main

sys.exit(main())
