"""Sampling: the distribution asked for, stops, rows that do not depend on their company, and what is told meanwhile."""

import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.quick import others_slow
from support.small_model import SMALL, mesh_of

from sami_jax.ground.display import showing
from sami_jax.ground.work import Work
from sami_jax.models import cache
from sami_jax.models.cache import new_cache
from sami_jax.models.decoder import bind, layers_apart, param_shardings, whole
from sami_jax.sampling import decoding, drawing
from sami_jax.sampling.decoding import generate, keeps_stacked
from sami_jax.sampling.drawing import SamplingOptions, choose
from sami_jax.sharding import make_mesh


def decode(ids) -> str:
    return "".join(chr(200 + i) for i in ids)


def responses(params, mesh, prompts, seeds, batch_size, options=None, end_tokens=(0,), against=(), config=SMALL):
    options = options or SamplingOptions(max_new_tokens=40)
    return list(
        generate(
            params,
            config,
            prompts,
            seeds,
            options,
            end_tokens=end_tokens,
            decode=decode,
            mesh=mesh,
            batch_size=batch_size,
            against=against,
        )
    )


# Without a window, whose ring a small cache would be.
FAR = dataclasses.replace(SMALL, sliding_window=None)
PROMPTS = [list(range(1, 1 + n)) for n in (3, 11, 5, 70, 2, 8, 30)]
SEEDS = [5, 6, 7, 8, 9, 10, 11]


def test_a_row_depends_on_its_seed_alone(small_params, mesh):
    together = responses(small_params, mesh, PROMPTS, SEEDS, 4)
    assert responses(small_params, mesh, PROMPTS, SEEDS, 1) == together
    assert responses(small_params, mesh, PROMPTS[::-1], SEEDS[::-1], 3)[::-1] == together
    again = responses(small_params, mesh, [PROMPTS[0]] * 3, [5, 6, 5], 3)
    assert again[0] == again[2] == together[0] != again[1]


def in_blocks_of(monkeypatch, size: int) -> None:
    monkeypatch.setattr(cache, "_block_size", lambda positions: size)
    jax.clear_caches()  # programs know their blocks


def test_how_far_is_read_changes_nothing(small_params, mesh, monkeypatch):
    in_blocks_of(monkeypatch, 32)
    chosen, honest = set(), decoding.reach_of
    monkeypatch.setattr(
        decoding, "reach_of", lambda taken, places: chosen.add(honest(taken, places)) or honest(taken, places)
    )
    as_far_as_needed = responses(small_params, mesh, PROMPTS, SEEDS, 2)
    assert chosen >= {32, 64, 96}
    monkeypatch.setattr(decoding, "reach_of", lambda taken, places: places)
    assert responses(small_params, mesh, PROMPTS, SEEDS, 2) == as_far_as_needed
    jax.clear_caches()


@pytest.mark.parametrize("stacked", [False, True])
def test_a_step_reads_as_far_as_it_is_told(small_params, monkeypatch, stacked):
    """To the bit what all of it says; what is no number behind that reaches nothing, and stays as it is."""
    in_blocks_of(monkeypatch, 8)
    rng, empty = np.random.default_rng(0), new_cache(FAR, 2, 20, jnp.float32, stacked)
    filled = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), empty)
    layers = small_params["blocks"]
    if not stacked:
        layers = [jax.tree.map(lambda weight, n=n: weight[n], layers) for n in range(FAR.n_layers)]
    model = bind(FAR, whole(small_params, layers))
    step = layers, jnp.array([7, 8]), jnp.array([6, 2])
    expected, kept = model.decode(*step, filled)
    np.testing.assert_array_equal(model.decode(*step, filled, 8)[0], expected)

    def spoilt(layer):
        return layer._replace(values=(layer.values[0], *(jnp.full_like(x, jnp.nan) for x in layer.values[1:])))

    broken = spoilt(filled) if stacked else tuple(map(spoilt, filled))
    found, after = model.decode(*step, broken, 8)
    np.testing.assert_array_equal(found, expected)
    jax.tree.map(np.testing.assert_array_equal, after, spoilt(kept) if stacked else tuple(map(spoilt, kept)))
    assert not np.isfinite(model.decode(*step, broken)[0]).any()


def test_blocks_are_few():
    for positions, reaches in ((200, {200}), (1100, {384, 768, 1100}), (33000, {8320, 16640, 24960, 33000})):
        assert {cache.reach_of(taken, positions) for taken in range(1, positions + 1)} == reaches
        layer, *_ = new_cache(FAR, 1, positions, jnp.float32)
        assert [block.stop for block in layer.blocks] == sorted(reaches)


ALIKE = [list(range(40, 80)) + prompt for prompt in PROMPTS]


@pytest.mark.parametrize(
    ("sizes", "window"),
    others_slow([((1, 1, 1), None), ((1, 1, 1), 32), ((2, 2, 2), None)], ((1, 1, 1), 32), ((2, 2, 2), None)),
)
def test_what_prompts_share_is_read_once_a_group(small_params, monkeypatch, sizes, window):
    config, mesh = dataclasses.replace(FAR, sliding_window=window), mesh_of(*sizes)
    params = jax.device_put(jax.tree.map(np.asarray, small_params), param_shardings(SMALL, mesh))
    read, honest = [], decoding.admit_prompts

    def spied(params, layers, slots, shared, prompts, *more, **static):
        read.append((shared.shape, prompts.shape))
        return honest(params, layers, slots, shared, prompts, *more, **static)

    monkeypatch.setattr(decoding, "admit_prompts", spied)
    found = responses(params, mesh, ALIKE, SEEDS, 4, config=config)
    shards = sizes[0] * sizes[1]
    assert {shared for shared, _ in read} == {(shards, 32)} and max(length for _, (_, length) in read) == 80
    monkeypatch.setattr(decoding, "shared_start", lambda *_: 0)
    assert responses(params, mesh, ALIKE, SEEDS, 4, config=config) == found


@pytest.mark.parametrize(
    ("prompts", "window", "count"),
    [
        (ALIKE, None, 32),
        (ALIKE, 20, 0),  # 16 tokens, of 110
        (PROMPTS, None, 0),  # the shortest has three
        ([ALIKE[0]], None, 0),
        ([range(100), range(100)], None, 96),  # a token is left of each
        ([range(100), [*range(20), *range(50)]], None, 0),
        ([(1,) * 9, (1,) * 9], None, 0),
    ],
)
def test_how_much_prompts_share(prompts, window, count):
    assert decoding.shared_start(prompts, dataclasses.replace(FAR, sliding_window=window)) == count


def test_layers_are_apart_where_weights_are_whole(mesh):
    assert not keeps_stacked(mesh) and not keeps_stacked(mesh_of(2, 1, 2))
    assert keeps_stacked(mesh_of(2, 2, 2)) and keeps_stacked(make_mesh({"fsdp": 2, "expert": 4}))
    assert keeps_stacked(make_mesh({"expert": 8}))


@pytest.mark.parametrize(
    ("sizes", "stacked"),
    others_slow(
        [((1, 1, 1), True), ((1, 8, 1), True), ((2, 2, 2), True), ((2, 2, 2), False), ((4, 1, 2), False)],
        ((2, 2, 2), True),
    ),
)
def test_eight_devices_and_layers_in_a_loop_say_the_same(small_params, mesh, sizes, stacked, monkeypatch):
    apart = responses(small_params, mesh, PROMPTS, SEEDS, 3)
    monkeypatch.setattr(decoding, "keeps_stacked", lambda mesh: stacked)
    chosen = mesh_of(*sizes)
    placed = jax.device_put(jax.tree.map(np.asarray, small_params), param_shardings(SMALL, chosen))
    assert responses(placed, chosen, PROMPTS, SEEDS, 3) == apart


def test_weights_lie_in_memory_once(small_params, mesh):
    """While layers are apart, nothing holds them stacked; afterwards they are as they were, to the last bit."""
    params = jax.tree.map(jnp.copy, small_params)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    before = sum(array.nbytes for array in jax.live_arrays())
    with layers_apart(params) as layers:
        assert "blocks" not in params and len(layers) == SMALL.n_layers
        gc.collect()
        assert sum(array.nbytes for array in jax.live_arrays()) - before < 0.01 * size
    assert not layers
    jax.tree.map(np.testing.assert_array_equal, params, small_params)
    assert params["blocks"]["mlp"]["up"]["weight"].sharding == small_params["blocks"]["mlp"]["up"]["weight"].sharding
    with pytest.raises(RuntimeError), layers_apart(params):
        raise RuntimeError
    assert jax.tree.structure(params) == jax.tree.structure(small_params)


def test_tokens_follow_the_model_without_a_cache(small_params, mesh):
    """Each greedy token is the likeliest after the prompt and what was said before, by a forward pass without a cache."""
    from sami_jax.models.decoder import bind

    [response] = responses(small_params, mesh, [PROMPTS[1]], [0], 1, SamplingOptions(temperature=0, max_new_tokens=12))
    text = [ord(character) - 200 for character in response.text]
    model = bind(SMALL, small_params)
    tokens = jnp.array([PROMPTS[1] + text])
    logits = model.unembed(model(tokens))[0]
    assert np.argmax(logits, axis=-1)[len(PROMPTS[1]) - 1 : -1].tolist() == text


def draws(options: SamplingOptions, logits, count=4000) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), count)
    drawn = choose(jnp.broadcast_to(jnp.asarray(logits)[None], (count, len(logits))), keys, options)
    return np.bincount(np.asarray(drawn), minlength=len(logits)) / count


LOGITS = np.log([0.5, 0.25, 0.15, 0.1]).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SamplingOptions(), [0.5, 0.25, 0.15, 0.1]),
        (SamplingOptions(temperature=0.5), np.array([0.25, 0.0625, 0.0225, 0.01]) / 0.345),
        (SamplingOptions(top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (SamplingOptions(top_p=0.7), [2 / 3, 1 / 3, 0, 0]),  # 0.5 does not reach 0.7, 0.75 does
        (SamplingOptions(top_p=0.3), [1, 0, 0, 0]),
        (SamplingOptions(temperature=0), [1, 0, 0, 0]),
    ],
)
def test_draws_have_the_asked_distribution(options, expected):
    np.testing.assert_allclose(draws(options, LOGITS), expected, atol=0.03)


def test_end_tokens_end_a_response(small_params, mesh):
    [free] = responses(small_params, mesh, [PROMPTS[0]], [5], 1, end_tokens=(95,))
    fifth = ord(free.text[5]) - 200
    first_place = free.text.index(free.text[5])
    [ended] = responses(small_params, mesh, [PROMPTS[0]], [5], 1, end_tokens=(0, fifth))
    assert ended.finish_reason == "stop"
    assert ended.text == free.text[:first_place] and ended.tokens == first_place


@pytest.mark.parametrize("segment", [1, 7, 32])
def test_stop_strings_cut_alike_whenever_the_host_looks(small_params, mesh, segment, monkeypatch):
    monkeypatch.setattr(decoding, "SEGMENT", segment)
    jax.clear_caches()
    [free] = responses(small_params, mesh, [PROMPTS[0]], [5], 1, end_tokens=(95,))
    stop = free.text[9:11]
    [cut] = responses(
        small_params, mesh, [PROMPTS[0]], [5], 1, SamplingOptions(max_new_tokens=40, stop=(stop,)), end_tokens=(95,)
    )
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish_reason == "stop" and cut.tokens == len(cut.text)


def test_length_is_a_finish_reason(small_params, mesh):
    [response] = responses(
        small_params, mesh, [PROMPTS[0]], [5], 1, SamplingOptions(max_new_tokens=3), end_tokens=(95,)
    )
    assert response.finish_reason == "length" and response.tokens == 3


AGAINST = [[prompt[0] + 50, *prompt[:-1][::-1]] for prompt in PROMPTS]  # of other lengths some, all with other tokens


def test_contrasted_tokens_follow_both_prompts_without_a_cache(small_params, mesh):
    """Each greedy token is the likeliest by the logits after the prompt and what was said, moved on from those after the other."""
    from sami_jax.models.decoder import bind

    own, other = PROMPTS[1], AGAINST[2]
    options = SamplingOptions(temperature=0, max_new_tokens=12, contrast=1.5)
    [response] = responses(small_params, mesh, [own], [0], 1, options, against=[other])
    text, model = list(response.token_ids), bind(SMALL, small_params)
    after_own, after_other = (
        model.unembed(model(jnp.array([prompt + text])))[0, len(prompt) - 1 : -1] for prompt in (own, other)
    )
    assert np.argmax(after_own + 1.5 * (after_own - after_other), axis=-1).tolist() == text
    assert np.argmax(after_own, axis=-1).tolist() != text


def test_contrasted_logits_are_drawn_from_as_they_are():
    """Compiled as without: what is largest is found, however its sum is put together."""
    logits, options = jax.random.normal(jax.random.key(0), (2, 96)) * 2, SamplingOptions(contrast=0.7)

    def draw(logits, seeds):
        return decoding._draw(drawing.contrasted(logits, 0.7), seeds, jnp.zeros(2, jnp.int32), options)

    for seed in range(8):
        keys = jnp.full(2, seed, jnp.uint32)
        moved = logits[:1] + 0.7 * (logits[:1] - logits[1:])
        expected = decoding._draw(jnp.repeat(moved, 2, axis=0), keys, jnp.zeros(2, jnp.int32), options)
        assert jax.jit(draw)(logits, keys).tolist() == expected.tolist()


def test_contrasted_rows_depend_on_their_seed_alone(small_params, mesh):
    options = SamplingOptions(max_new_tokens=40, contrast=0.7)
    together = responses(small_params, mesh, PROMPTS, SEEDS, 4, options, against=AGAINST)
    assert len(together) == len(PROMPTS) and len({response.text for response in together}) == len(PROMPTS)
    turned = (PROMPTS[::-1], SEEDS[::-1], 4, options)
    assert responses(small_params, mesh, *turned, against=AGAINST[::-1])[::-1] == together
    eight = mesh_of(2, 2, 2)
    placed = jax.device_put(jax.tree.map(np.asarray, small_params), param_shardings(SMALL, eight))
    assert responses(placed, eight, PROMPTS, SEEDS, 3, options, against=AGAINST) == together
    stopped = SamplingOptions(max_new_tokens=40, contrast=0.7, stop=(together[0].text[2],))
    cut = responses(small_params, mesh, PROMPTS, SEEDS, 4, stopped, against=AGAINST)
    assert [one.text for one in cut] == [one.text.split(together[0].text[2])[0] for one in together]


def test_without_a_difference_there_is_nothing_to_contrast(small_params, mesh):
    plain = responses(small_params, mesh, PROMPTS, SEEDS, 4)
    options = SamplingOptions(max_new_tokens=40, contrast=2.0)
    assert responses(small_params, mesh, PROMPTS, SEEDS, 4, options, against=PROMPTS) == plain


def test_contrasted_responses_are_counted_once(small_params, mesh, monkeypatch):
    told = []
    monkeypatch.setattr(Work, "tell", lambda self, *how_far: told.append(how_far))
    with showing(Work("sampling", len(PROMPTS))):
        options = SamplingOptions(max_new_tokens=40, contrast=0.7)
        found = responses(small_params, mesh, PROMPTS, SEEDS, 3, options, against=AGAINST)
    assert told[-1][0] == len(PROMPTS) and told[-1][1] == 1.0
    assert 0 <= told[-1][2] - sum(response.tokens for response in found) <= len(PROMPTS)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_the_nucleus_is_the_shortest_beginning_of_the_sorted_tokens(top_p):
    logits = jax.random.normal(jax.random.key(0), (16, 300)) * 3
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)
    kept = np.asarray(drawing._in_nucleus(jnp.asarray(probabilities, jnp.float32), top_p))
    for row, mine in zip(probabilities, kept, strict=True):
        order = np.argsort(-row)
        size = int(np.searchsorted(np.cumsum(row[order]), top_p)) + 1
        assert set(np.flatnonzero(mine)) == set(order[:size].tolist())


@pytest.mark.parametrize("stop", [(), ("~",)])
def test_tokens_are_told_while_responses_go_on(small_params, mesh, stop, monkeypatch):
    told = []
    monkeypatch.setattr(Work, "tell", lambda self, *how_far: told.append(how_far))
    with showing(Work("sampling", len(PROMPTS))):
        options = SamplingOptions(max_new_tokens=40, stop=stop)
        found = responses(small_params, mesh, PROMPTS, SEEDS, 3, options)
    ended, shares, tokens, left, _ = zip(*told, strict=True)
    assert ended[0] == 0 and 0 < tokens[0] <= 3  # the first is of the first tokens
    assert len({count for count, done in zip(tokens, ended, strict=True) if done == 0}) > 1
    assert [*ended] == sorted(ended) and [*tokens] == sorted(tokens)
    assert ended[-1] == len(PROMPTS) and shares[-1] == 1.0 and left[-1] == 0.0
    assert 0 <= tokens[-1] - sum(response.tokens for response in found) <= len(PROMPTS)  # their ends are counted


def waiting(params, options, mesh) -> decoding._Generation:
    """Of all prompts, before the first."""
    return decoding._Generation(params, params["blocks"], SMALL, PROMPTS, SEEDS, options, (0,), decode, mesh, 3)


@pytest.mark.parametrize(
    ("hosts_count", "stop", "seconds", "steps"),
    [
        (1, (), 0.01, [1, 2, 4, 8, 16, 32, 40, 40]),  # as many as there may be
        (1, (), 0.8, [1, 1, 1]),
        (1, ("~",), 0.01, [1, 2, 4, 8, 16, 32, 32]),
        (2, (), 9.0, [1, 2, 4, 8, 16, 32, 32]),  # whatever its clock says: others have another
    ],
)
def test_the_host_looks_about_once_a_second(small_params, mesh, hosts_count, stop, seconds, steps, monkeypatch):
    options = SamplingOptions(max_new_tokens=40, stop=stop)
    generation = waiting(small_params, options, mesh)
    monkeypatch.setattr(decoding.hosts, "count", lambda: hosts_count)
    for expected in steps:
        assert generation.steps == expected
        generation._pace(seconds)


def test_slow_steps_are_made_a_few_at_a_time(small_params, mesh):
    generation = waiting(small_params, SamplingOptions(max_new_tokens=40), mesh)
    generation.steps = 32
    for expected in (16, 8, 4, 2, 1, 1):
        generation._pace(3.0)
        assert generation.steps == expected
