"""What `machine.devices` runs in a process of its own: starts jax, compiles and runs a small program, prints JSON."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np


def trial() -> dict:
    x = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) % 7  # small whole numbers: exact in bfloat16 too
    here = [jax.device_put(x, device) for device in jax.local_devices()]
    started = time.monotonic()
    program = jax.jit(lambda x: jnp.dot(x.astype(jnp.bfloat16), x.T, preferred_element_type=jnp.float32).sum(1))
    program(here[0]).block_until_ready()
    compiled = time.monotonic()
    results = jax.block_until_ready([program(one) for one in here])
    return {
        "devices": [
            {
                "platform": device.platform,
                "kind": device.device_kind,
                "memory": (device.memory_stats() or {}).get("bytes_limit"),
            }
            for device in jax.devices()
        ],
        "compiled": compiled - started,
        "ran": time.monotonic() - compiled,
        "right": all(np.array_equal(result, (x @ x.T).sum(1)) for result in results),
    }


if __name__ == "__main__":
    print(json.dumps(trial()))
