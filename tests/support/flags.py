"""How programs are compiled in tests, which is most of their time. Read before jax is imported.

XLA_FLAGS given from outside come last, and win. What `make package` and `make demo` run is compiled as a user's is.
"""

import importlib.metadata
import os

_GIVEN = os.environ.setdefault("SAMI_JAX_TESTS_XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
# Later jaxlibs end a process that names the flag.
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jax").startswith("0.10.") else ""


def _flags(devices: int, level: int) -> str:
    count = f"--xla_force_host_platform_device_count={devices}"
    return f"{count} --xla_backend_optimization_level={level}{_EMITTERS} {_GIVEN}"


HERE = _flags(devices=8, level=0)


def environment(devices: int = 1, level: int = 1, **variables: str) -> dict[str, str]:
    """Of a process that a test starts.

    Args:
      level: of XLA's optimization. What runs for seconds is compiled a little better than what runs for moments.
    """
    return os.environ | {"XLA_FLAGS": _flags(devices, level)} | variables
