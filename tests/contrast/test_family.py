"""Every row of the family against matrices worked by hand, against the published losses in torch, and against its identities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import FrozenConfigDict
from support.quick import others_in_faults
from support.small_model import SMALL, mesh_of, random_batch

from sami_jax.config import defaults
from sami_jax.contrast import likelihood, objective
from sami_jax.contrast.family import FAMILY, Member
from sami_jax.contrast.likelihood import normalized
from sami_jax.contrast.update import accumulate, mean_metrics, put_batch, sami_loss
from sami_jax.models.decoder import init_params, param_shardings

likelihoods = jax.jit(likelihood.likelihoods, static_argnums=1, static_argnames=("over_base", "divergence"))
CONTRASTS = [name for name in FAMILY if name not in ("sft", "distill")]

# Of one query: summed log-probs, those under the base, and the tokens of its two responses.
S = np.array([[-2.0, -5.5], [-3.0, -4.0]])
R = np.array([[-3.0, -6.0], [-3.0, -8.0]])
LENGTHS = np.array([1, 2])
# Leads of the own pair over the other one in its row, and in its column, as each row of the family takes them.
LEADS = {
    "sami": ([0.75, 1.0], [1.0, 0.75]),  # of the means, [[-2, -2.75], [-3, -2]]
    "sami-base": ([0.5, 4.0], [1.0, 3.5]),  # of S - R, [[1, 0.5], [0, 4]]
    "dpo": ([0.5, 4.0], None),
    "mipo": (None, [1.0, 3.5]),
    "simpo": ([0.75, 1.0], None),
    "ipo": ([0.75, 2.0], None),  # of the means of S - R, [[1, 0.25], [0, 2]]
}


def wanted(name: str) -> FrozenConfigDict:
    """`config.objective` of a name."""
    config = defaults()
    config.objective.name = name
    return FrozenConfigDict(config).objective


def loss(summed, base, lengths, member) -> jax.Array:
    s, r = (normalized(jnp.asarray(x), jnp.asarray(lengths), member.normalize) for x in (summed, base))
    return objective.critic_loss(s, r if member.over_base else None, member)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


HAND = {
    "sami": lambda lead: softplus(-lead) / 2,
    "sami-base": lambda lead: softplus(-lead / 10) / 2,
    "dpo": lambda lead: softplus(-lead / 10),
    "mipo": lambda lead: softplus(-lead / 10),
    "simpo": lambda lead: softplus(1 - 2 * lead),
    "ipo": lambda lead: (lead - 5) ** 2,
}
SLOPES = {
    "sami": lambda lead: -sigmoid(-lead) / 2,
    "sami-base": lambda lead: -sigmoid(-lead / 10) / 20,
    "dpo": lambda lead: -sigmoid(-lead / 10) / 10,
    "mipo": lambda lead: -sigmoid(-lead / 10) / 10,
    "simpo": lambda lead: -2 * sigmoid(1 - 2 * lead),
    "ipo": lambda lead: 2 * (lead - 5),
}


@pytest.mark.parametrize("name", CONTRASTS)
def test_two_constitutions_by_hand(name):
    value, gradient = jax.value_and_grad(lambda s: loss(s, R, LENGTHS, wanted(name)))(jnp.asarray(S))
    rows, columns = LEADS[name]
    expected, slope = 0.0, np.zeros((2, 2))
    for leads, places in ((rows, [(0, 1), (1, 0)]), (columns, [(1, 0), (0, 1)])):
        for own, lead in enumerate(leads or []):
            expected += HAND[name](lead) / 2
            slope[own, own] += SLOPES[name](lead) / 2
            slope[places[own]] -= SLOPES[name](lead) / 2
    tokens = LENGTHS if FAMILY[name].normalize == "mean" else np.ones(2)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope / tokens, rtol=1e-5, atol=1e-7)


def thrice(x: float, y: float) -> np.ndarray:
    return np.where(np.eye(3, dtype=bool), x, y)


@pytest.mark.parametrize("name", CONTRASTS)
def test_three_constitutions_by_hand(name):
    """X is log 2 on the diagonal and 0 beside it: of each line, the own pair has 2 parts of 4."""
    member, lengths = FAMILY[name], np.array([3, 1, 2])
    tokens = lengths if member.normalize == "mean" else np.ones(3)
    r = np.random.default_rng(0).normal(size=(3, 3)) if member.over_base else np.zeros((3, 3))
    s = thrice(math.log(2), 0) / member.beta * tokens + r
    value, gradient = jax.value_and_grad(lambda s: loss(s, r, lengths, member))(jnp.asarray(s))
    expected, of_x = math.log(2), thrice(-1 / 2, 1 / 4) / 3  # softmax less identity
    if name == "simpo":  # its margin of 1 leaves 2 / e parts of 2 / e + 2
        own = 1 / (1 + math.e)
        expected, of_x = -math.log(own), thrice(own - 1, (1 - own) / 2) / 3
    if name == "ipo":  # six leads of log 2, which are to be 1/2
        miss = (math.log(2) - 0.5) / 0.1
        expected, of_x = miss**2, thrice(2, -1) * 2 * miss / 0.1 / 6
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, of_x * member.beta / tokens, rtol=1e-4, atol=1e-6)


def test_one_constitution_has_nothing_to_contrast():
    for name in CONTRASTS:
        assert float(loss([[-7.0]], [[-9.0]], [3], FAMILY[name])) == pytest.approx(0, abs=1e-6), name


def torch_losses(chosen, rejected, base_chosen, base_rejected, chosen_tokens, rejected_tokens):
    """Of pairs, as TRL 1.16 computes them: `DPOTrainer._compute_loss` (sigmoid, ipo), `CPOTrainer.cpo_loss` (simpo, which is
    given means)."""
    torch = pytest.importorskip("torch")
    logsigmoid = torch.nn.functional.logsigmoid
    chosen_scores, rejected_scores = chosen - base_chosen, rejected - base_rejected
    delta = chosen_scores / chosen_tokens - rejected_scores / rejected_tokens
    beta, gamma = 2.0, 1.0
    logits = chosen / chosen_tokens - rejected / rejected_tokens - gamma / beta
    return {
        "dpo": -logsigmoid(0.1 * (chosen_scores - rejected_scores)),
        "ipo": (delta - 1 / (2 * 0.1)) ** 2,
        "simpo": -logsigmoid(beta * logits),
    }


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo"])
def test_pairs_are_scored_as_trl_does(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    s, r = -60 * rng.random((5, 2, 2)), -60 * rng.random((5, 2, 2))
    lengths = rng.integers(1, 40, (5, 2))

    def ours(s):
        return jnp.mean(loss(s, r, lengths, wanted(name)))

    value, gradient = jax.value_and_grad(ours)(jnp.asarray(s))
    theirs = torch.tensor(s, requires_grad=True)
    base, tokens = torch.tensor(r), torch.tensor(lengths)
    pairs = []
    for i in range(2):  # under constitution i, response i is chosen, the other one rejected
        given = (theirs[:, i, i], theirs[:, i, 1 - i], base[:, i, i], base[:, i, 1 - i], tokens[:, i], tokens[:, 1 - i])
        pairs.append(torch_losses(*given)[name])
    expected = torch.stack(pairs).mean()
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


def random_s(count: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(count).normal(size=(4, count, count)) * 3)


def test_sami_of_two_is_simpo_in_both_directions():
    """SimPO without its margin, at beta 1, between responses and between constitutions, half of each."""
    s, lengths = random_s(2), np.full((4, 2), 3)
    plain = FAMILY["simpo"]._replace(beta=1.0, margin=0.0)
    forward = loss(s, s, lengths, plain)
    backward = loss(
        jnp.swapaxes(s, -1, -2), s, lengths, plain
    )  # of equally long responses, means are those of the other way
    np.testing.assert_allclose(loss(s, s, lengths, FAMILY["sami"]), (forward + backward) / 2, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_row_and_column_leads_have_the_same_sum(count):
    """Over all pairs of constitutions: there is one interaction, and DPO and MIPO are two ways to split it."""
    x = np.asarray(random_s(count))
    own = np.diagonal(x, axis1=1, axis2=2)
    rows, columns = own[:, :, None] - x, own[:, None, :] - x
    np.testing.assert_allclose(rows.sum((1, 2)), columns.sum((1, 2)), rtol=1e-5)


def test_what_dpo_and_mipo_do_not_see():
    """A response that is likelier under both constitutions changes DPO alone, a talkative constitution MIPO alone."""
    s, lengths = random_s(2), np.ones((4, 2), int)
    response, constitution = jnp.array([[[5.0, 0.0]]]), jnp.array([[[5.0], [0.0]]])
    for name, unseen, seen in (("dpo", constitution, response), ("mipo", response, constitution)):
        before, same, other = (loss(x, s * 0, lengths, FAMILY[name]) for x in (s, s + unseen, s + seen))
        np.testing.assert_allclose(same, before, rtol=1e-4)
        assert np.abs(other - before).min() > 1e-3


def test_nothing_is_pulled_at_the_base_that_prefers_nothing():
    """Over the base, training begins at a loss of log C whatever the base thinks."""
    s, lengths = random_s(3), np.ones((4, 3), int)
    np.testing.assert_allclose(loss(s, s, lengths, FAMILY["sami-base"]), math.log(3), rtol=1e-6)


def gradient_of(name, mesh, params, base, microbatches, kl_weight=0.0):
    config = defaults()
    config.objective.name, config.objective.kl_weight, config.train.remat = name, kl_weight, "none"
    add = jax.jit(accumulate, static_argnums=(3, 5))
    batch = random_batch(1, 8, 2)
    placed, other = (jax.device_put(jax.tree.map(np.asarray, p), param_shardings(SMALL, mesh)) for p in (params, base))
    total, of_each = None, []
    with jax.set_mesh(mesh):
        for i in range(microbatches):
            part = put_batch(jax.tree.map(lambda x, i=i: np.split(x, microbatches)[i], batch), mesh)
            total, metrics = add(placed, {}, total, SMALL, part, FrozenConfigDict(config), other)
            of_each.append(metrics)
    mean = jax.tree.map(lambda x: np.asarray(x) / microbatches, total)
    return mean, {name: float(value) for name, value in mean_metrics(of_each).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", others_in_faults(FAMILY, "sami", "dpo", "ipo"))
def test_on_eight_devices_and_under_accumulation(name, small_params, mesh):
    base = init_params(SMALL, 7, mesh)
    one, metrics = gradient_of(name, mesh, small_params, base, 1)
    batch, member = random_batch(1, 8, 2), FAMILY[name]
    s, r = (np.asarray(likelihoods(p, SMALL, batch).summed) for p in (small_params, base))
    expected = np.mean(loss(s, r, batch.response_lengths, member))
    if name not in CONTRASTS:
        own = np.diagonal(s, axis1=1, axis2=2) / batch.response_lengths
        expected = -own.mean()
        assert metrics["sft_loss"] == pytest.approx(expected, rel=1e-4)
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-4)
    for chosen, microbatches in ((mesh_of(2, 2, 2), 1), (mesh, 4)):
        other, other_metrics = gradient_of(name, chosen, small_params, base, microbatches)
        difference = optax.tree.norm(jax.tree.map(np.subtract, other, one))
        assert float(difference / optax.tree.norm(one)) < 2e-5
        assert other_metrics["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_the_base_reads_the_rows_once_for_both(small_params, mesh):
    """R is S of the base, with the KL term or without; the KL is that of the base alone with its response."""
    base, batch = init_params(SMALL, 7, mesh), random_batch(2, 2, 3)
    both = likelihoods(small_params, SMALL, batch, reference=base, over_base=True)
    alone = likelihoods(small_params, SMALL, batch, reference=base, over_base=True, divergence=False)
    np.testing.assert_allclose(both.base, likelihoods(base, SMALL, batch).summed, atol=1e-4)
    np.testing.assert_allclose(alone.base, both.base, atol=1e-5)
    np.testing.assert_allclose(both.kl, likelihoods(small_params, SMALL, batch, reference=base).kl, rtol=1e-4)
    assert alone.kl is None


def test_estimates_are_of_the_model_whatever_is_taken_off(small_params, mesh):
    base, batch = init_params(SMALL, 7, mesh), random_batch(2, 2, 2)
    config = defaults()
    config.objective.name = "dpo"
    found = jax.jit(lambda params: sami_loss(params, SMALL, batch, config, base)[1])(small_params)
    s, r = (likelihoods(p, SMALL, batch).summed for p in (small_params, base))
    assert float(found["mi_lower_bound"]) == pytest.approx(float(jnp.mean(objective.mi_lower_bound(s))), abs=1e-4)
    assert float(found["own_logprob"]) == pytest.approx(float(jnp.mean(objective.own(s))), rel=1e-4)
    assert float(found["own_over_base"]) == pytest.approx(float(jnp.mean(objective.own(s - r))), rel=1e-3)
    assert float(found["row_accuracy_over_base"]) == float(jnp.mean(objective.row_accuracy(s - r)))


def test_the_fields_of_a_row_are_fields_of_the_config():
    chosen = defaults().objective
    assert FAMILY["sami"] == Member(*(chosen[field] for field in Member._fields))
