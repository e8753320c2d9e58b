"""What the host holds while a sharded model is read: hardly more than the model. On host devices, that is host memory too.

Bounded is all of a process's resident memory at its peak, pages of mapped files included: they could be dropped, but a
container's limit may count them.
"""

import json
import os
import subprocess
import sys

import pytest
from support.flags import environment

GIGABYTE = 10**9

WRITE = """
import sys
from pathlib import Path
import jax, ml_dtypes, numpy as np
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params
from sami_jax.export.huggingface import export

config = ModelConfig(
    family="llama", vocab_size=16384, d_model=1024, n_layers=int(sys.argv[3]), n_heads=16, n_kv_heads=8,
    head_dim=64, d_ff=2816, max_positions=128,
)
some = np.random.default_rng(0).standard_normal(2**20, np.float32).astype(sys.argv[2])
params = jax.tree.map(lambda leaf: np.resize(some, leaf.shape), abstract_params(config))
export(params, config, Path(sys.argv[1]), lambda folder: None, max_shard_bytes=200 * 2**20)
"""

LOAD = """
import json, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.sharding import make_mesh

def resident(line):
    return int(next(row for row in open("/proc/self/status") if row.startswith(line)).split()[1]) * 1024

folder, dtype, tensor = Path(sys.argv[1]), jnp.dtype(sys.argv[2]), int(sys.argv[3])
config, mesh = read_config(folder), make_mesh({"fsdp": -1, "tensor": tensor})
jax.block_until_ready([jax.device_put(np.ones(8), device) for device in jax.devices()])
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
params = load_params(folder, config, mesh, dtype)
peak = resident("VmHWM") - before
print(json.dumps([peak, sum(leaf.nbytes for leaf in jax.tree.leaves(params)), len(jax.devices())]))
"""


def python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment(devices=8), check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
@pytest.mark.faults
@pytest.mark.parametrize(("dtype", "layers"), [("bfloat16", "38"), ("float32", "18")])
def test_a_gigabyte_is_read_in_little_more(tmp_path, dtype, layers):
    folder = tmp_path / "model"
    python(WRITE, str(folder), dtype, layers)
    assert len(list(folder.glob("*.safetensors"))) > 3
    for tensor in (1, 2):
        peak, size, devices = json.loads(python(LOAD, str(folder), dtype, str(tensor)))
        assert devices == 8 and 0.95 * GIGABYTE < size < 1.05 * GIGABYTE
        assert peak < 1.3 * GIGABYTE
        assert peak - size < 0.3 * GIGABYTE
