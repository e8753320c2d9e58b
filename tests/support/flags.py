"""How programs are compiled in tests. Read before jax is imported."""

import importlib.metadata

# Most of a test's time is compilation, and without optimization it is a third on jax 0.10. Whole runs, as processes, compile as
# a user's do, but for those that ask for this. XLA_FLAGS given from outside come last, and win.
UNOPTIMIZED = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jax").startswith("0.10."):  # later ones end a process that names the flag
    UNOPTIMIZED += " --xla_cpu_use_fusion_emitters=false"
