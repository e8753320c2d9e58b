"""llama.cpp's own server, as the package xllamacpp holds it, on a port: what `llama-server -m MODEL --port PORT` is.

python llama_cpp_server.py MODEL.gguf PORT [SLOTS]
"""

import signal
import sys


def serve(model: str, port: int, slots: int = 4) -> None:
    import xllamacpp  # pyright: ignore[reportMissingImports] - not among what the tests need

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = 1024 * slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
