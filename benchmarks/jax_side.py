"""sami_jax: the update with a row for each pair (J0) and as it is (J1; with adapters: LoRA), and sampling."""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import cases
from sami_jax.config import defaults
from sami_jax.contrast.likelihood import likelihoods, normalized, plain_likelihoods
from sami_jax.contrast.objective import contrastive_loss
from sami_jax.contrast.optim import make_optimizer
from sami_jax.contrast.update import init_state, make_update
from sami_jax.data.batches import ContrastExample, pack, shape_for
from sami_jax.export.huggingface import export
from sami_jax.export.peft import export_adapters
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.models.peft import load_adapters, read_adapter
from sami_jax.models.stack import joined
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sharding import make_mesh


def train(arguments: argparse.Namespace, config, params, mesh) -> None:
    prompts, responses = cases.training_texts(config.vocab_size, arguments.count)
    example = ContrastExample(tuple(map(tuple, prompts.tolist())), tuple(map(tuple, responses.tolist())))
    batch = pack([example], shape_for([example], 16))
    settings = defaults()
    settings.optim.learning_rate = cases.LEARNING_RATE
    settings.train.remat = "dots"
    frozen = {}
    if arguments.adapter:
        frozen, config = params, read_adapter(arguments.adapter, config)
        params = load_adapters(arguments.adapter, config, mesh, jnp.float32)

    def loss_and_s(params, batch):
        if arguments.side == "J0":
            summed = plain_likelihoods(params, config, batch)
        else:
            summed = likelihoods(joined(frozen, params), config, batch).summed
        s = normalized(summed, batch.response_lengths, "mean")
        return jnp.mean(contrastive_loss(s)), s

    gradient = jax.grad(loss_and_s, has_aux=True)
    before = cases.peak_memory()
    with jax.set_mesh(mesh):
        if not (arguments.check / "gradient").exists():
            arguments.check.mkdir(parents=True, exist_ok=True)
            gradients, s = jax.jit(gradient)(params, batch)
            np.save(arguments.check / "s.npy", np.asarray(s[0]))
            exported = arguments.check / "exported"
            if arguments.adapter:
                export_adapters(config, gradients, arguments.model, exported)
            else:
                export(gradients, config, exported, lambda folder: None)
            next(exported.glob("*.safetensors")).rename(arguments.check / "gradient")
        state = init_state(params, config, settings, mesh)
        if arguments.side != "J0":
            update = make_update(config, settings, mesh)

            def step():
                nonlocal state
                state, metrics = update(state, [batch], frozen, None)
                jax.block_until_ready((state, metrics))
        else:
            optimizer = make_optimizer(settings.optim)

            def plain_update(params, opt_state, batch):
                updates, opt_state = optimizer.update(gradient(params, batch)[0], opt_state, params)
                return optax.apply_updates(params, updates), opt_state

            plain_update = jax.jit(plain_update, donate_argnums=(0, 1))
            held = state.params, state.opt_state

            def step():
                nonlocal held
                held = jax.block_until_ready(plain_update(*held, batch))

        cases.answer(step, arguments.seconds, before)


def sample(arguments: argparse.Namespace, config, params, mesh) -> None:
    prompts = cases.generation_prompts(config.vocab_size, arguments.batch).tolist()
    before = cases.peak_memory()

    def run() -> list[list[int]]:
        responses = generate(
            params,
            config,
            prompts,
            [0] * len(prompts),
            SamplingOptions(temperature=0.0, max_new_tokens=cases.NEW_TOKENS),
            end_tokens=(config.vocab_size,),  # never drawn: lengths are fixed
            decode=json.dumps,
            mesh=mesh,
            batch_size=arguments.batch,
        )
        return [json.loads(response.text) for response in responses]

    arguments.check.mkdir(parents=True, exist_ok=True)
    tokens = cases.answer(run, arguments.seconds, before)
    np.save(arguments.check / "tokens.npy", np.array(tokens))


def main() -> None:
    arguments = cases.parse_side(("J0", "J1", "LoRA", "ours"))
    mesh = make_mesh({}, jax.devices()[:1])
    config = read_config(arguments.model)
    params = load_params(arguments.model, config, mesh, jnp.float32)
    {"train": train, "adapters": train, "generate": sample}[arguments.task](arguments, config, params, mesh)


if __name__ == "__main__":
    main()
