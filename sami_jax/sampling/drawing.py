"""How the next token is drawn from a model's logits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from sami_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0  # smallest set of likeliest tokens whose probability reaches this; 1 keeps all
    top_k: int = 0  # this many likeliest tokens; 0 keeps all
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()  # texts that end a response and are cut off, with all that follows them
    # Weight of what a prompt's logits are above those under the prompt it is held against; 0 holds it against none.
    contrast: float = 0.0

    def __post_init__(self):
        """Raises UserError naming the setting that is out of its range."""
        for name, holds, wanted in (
            ("temperature", 0 <= self.temperature < float("inf"), "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("contrast", 0 <= self.contrast < float("inf"), "at least 0"),
        ):
            if not holds:
                raise UserError(f"{name}={getattr(self, name)}: must be {wanted}")


def choose(logits: jax.Array, keys: jax.Array, options: SamplingOptions) -> jax.Array:
    """Draws one token a row: logits [R, V] float32, keys [R] -> [R] int32. Temperature, then top-k, then top-p."""
    if options.temperature == 0:
        return _argmax(logits)
    logits = logits / options.temperature
    if options.top_k:
        threshold = jax.lax.top_k(logits, min(options.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    if options.top_p < 1:
        logits = jnp.where(_in_nucleus(jax.nn.softmax(logits, axis=-1), options.top_p), logits, -jnp.inf)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    return _argmax(logits + noise)


def contrasted(logits: jax.Array, weight: float) -> jax.Array:
    """Logits [R, V] of pairs of rows: the even one's, moved away from the odd one's, in both of them, so that both say the same.

    (1 + weight) own - weight other, as context-aware decoding has it (arXiv 2305.14739).
    """
    # As a product, which is computed once: a sum may be computed for each use of it and rounded otherwise, and then the largest does
    # not equal itself in `_argmax`.
    pairs = logits.reshape(-1, 2, logits.shape[-1])
    weights = jnp.array([[1 + weight, -weight]] * 2)
    return jnp.einsum("rov,po->rpv", pairs, weights, precision="highest").reshape(logits.shape)


def _in_nucleus(probabilities: jax.Array, top_p: float) -> jax.Array:
    """[R, V] bool: the fewest likeliest tokens whose probability reaches top_p; equally likely ones stay or go together.

    Bisects the least probability that stays, over the bits of a float32, whose order is that of the numbers: 31 sums
    in place of a sort, which is slow on every backend.
    """
    as_float = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.float32)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low + 1) // 2
        kept = jnp.where(probabilities >= as_float(middle), probabilities, 0.0)
        reached = jnp.sum(kept, axis=-1, keepdims=True) >= top_p
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle - 1)

    likeliest = jax.lax.bitcast_convert_type(jnp.max(probabilities, axis=-1, keepdims=True), jnp.int32)
    least, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(likeliest), likeliest))
    return probabilities >= as_float(least)


def _argmax(x: jax.Array) -> jax.Array:
    """The first of the largest, [R, V] -> [R]. jnp.argmax runs one element at a time on CPU."""
    places = jnp.arange(x.shape[-1])[None]
    return jnp.min(jnp.where(x == jnp.max(x, axis=-1, keepdims=True), places, x.shape[-1] - 1), axis=-1)
