"""Models and servers that tests know everything about: a real model folder whose model says a fixed text, for whatever it is asked: a chain of tokens, each followed by the next.

Embeddings are one-hot, attention and MLP add nothing, and the unembedding sends each token to its successor. So it runs in
transformers, behind a server, and in our own sampler, and a test knows what comes.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

END, ASSISTANT = "</s>", "<assistant>"


def write_scripted_model(folder: Path, script: list[str]) -> None:
    """Writes a Llama folder with a chat template. In a chat it says the whole script; a prompt that ends in a piece of
    the script is completed with the pieces after it.

    Args:
      script: pieces of text, all different.
    """
    pieces = ["<unk>", END, ASSISTANT, *script]
    width = -(-len(pieces) // 16) * 16
    successors = {
        **dict.fromkeys(range(3), 1),
        2: 3,
        **{i: i + 1 for i in range(3, len(pieces) - 1)},
        len(pieces) - 1: 1,
    }
    unembedding = np.zeros((width, width), np.float32)
    for token, successor in successors.items():
        unembedding[successor, token] = 30.0
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": width,
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    layer = "model.layers.0."
    weights = {
        "model.embed_tokens.weight": np.eye(width, dtype=np.float32),
        "model.norm.weight": np.ones(width, np.float32),
        "lm_head.weight": unembedding,
        layer + "input_layernorm.weight": np.ones(width, np.float32),
        layer + "post_attention_layernorm.weight": np.ones(width, np.float32),
        **{f"{layer}self_attn.{name}_proj.weight": np.zeros((width, width), np.float32) for name in "qkvo"},
        **{f"{layer}mlp.{name}_proj.weight": np.zeros((16, width), np.float32) for name in ("gate", "up")},
        layer + "mlp.down_proj.weight": np.zeros((width, 16), np.float32),
    }
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 1}))
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<unk>", END, ASSISTANT])
    tokenizer.add_tokens(script)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**tokenizer_config, "clean_up_tokenization_spaces": False})
    )
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}" + ASSISTANT)


@contextlib.contextmanager
def serving(port: int) -> Iterator[str]:
    """`transformers serve`, with the models that clients name; yields its base URL."""
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Its log goes nowhere: a pipe nobody reads would fill up and stop the server.
    process = subprocess.Popen(
        [*command, "--device", "cpu"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            assert process.poll() is None, "the server did not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
