"""Hugging Face transformers + torch: the reference algorithm (T0), a fair version with a shared prefix (T1; with the adapters of peft:
peft), and `generate`."""

import argparse

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import save_file

from benchmarks import cases


def loss_of(s: torch.Tensor) -> torch.Tensor:
    target = torch.arange(s.shape[0])
    return (torch.nn.functional.cross_entropy(s, target) + torch.nn.functional.cross_entropy(s.T, target)) / 2


def reference_s(model, prompts: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """T0: C^2 whole rows and the logits of all their tokens, as the authors' code does it."""
    count = len(prompts)
    rows = torch.cat([prompts.repeat_interleave(count, 0), responses.repeat(count, 1)], dim=1)
    logprobs = model(rows, use_cache=False).logits[:, :-1].log_softmax(-1)
    chosen = logprobs.gather(-1, rows[:, 1:, None])[..., 0]
    return chosen[:, cases.PREFIX - 1 :].mean(-1).view(count, count)


def shared_prefix_s(model, prompts: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """T1: each prompt once, its keys and values repeated for the C responses, logits at response tokens alone."""
    count = len(prompts)
    prefix = model.model(prompts, use_cache=True)
    cache = prefix.past_key_values
    cache.batch_repeat_interleave(count)
    rows = responses.repeat(count, 1)
    along = model.model(rows, past_key_values=cache).last_hidden_state[:, :-1]
    first = prefix.last_hidden_state[:, -1:].repeat_interleave(count, 0)
    logprobs = model.lm_head(torch.cat([first, along], dim=1)).log_softmax(-1)
    return logprobs.gather(-1, rows[..., None])[..., 0].mean(-1).view(count, count)


def train(arguments: argparse.Namespace, model) -> None:
    prompts, responses = map(torch.tensor, cases.training_texts(model.config.vocab_size, arguments.count))
    s_of = {"T0": reference_s}.get(arguments.side, shared_prefix_s)
    whole = model
    if arguments.adapter:
        whole = peft.PeftModel.from_pretrained(model, arguments.adapter, is_trainable=True)
    trained = {name: weight for name, weight in whole.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=cases.LEARNING_RATE, weight_decay=0.0)
    before = cases.peak_memory()

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        s = s_of(model, prompts, responses)
        loss_of(s).backward()
        return s

    def update() -> None:
        step()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()

    if not (arguments.check / "gradient").exists():
        arguments.check.mkdir(parents=True, exist_ok=True)
        np.save(arguments.check / "s.npy", step().detach().numpy())
        gradients = {name.replace(".default", ""): weight.grad for name, weight in trained.items()}
        save_file(gradients, arguments.check / "gradient")
    cases.answer(update, arguments.seconds, before)


def generate(arguments: argparse.Namespace, model) -> None:
    prompts = torch.tensor(cases.generation_prompts(model.config.vocab_size, arguments.batch))
    options = {"cache_implementation": "static"} if arguments.side == "static" else {}
    before = cases.peak_memory()

    @torch.no_grad()
    def run() -> torch.Tensor:
        return model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=cases.NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )

    arguments.check.mkdir(parents=True, exist_ok=True)
    tokens = cases.answer(run, arguments.seconds, before)
    np.save(arguments.check / "tokens.npy", tokens[:, cases.PROMPT :].numpy())


def main() -> None:
    arguments = cases.parse_side(("T0", "T1", "peft", "dynamic", "static"))
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)  # a local folder  # nosec B615
    {"train": train, "adapters": train, "generate": generate}[arguments.task](arguments, model)


if __name__ == "__main__":
    main()
