"""SAMI from Python, in the paper's letters: queries x, constitutions c, responses y, S[b, i, j] = log p(y_j | c_i, x_b).

    model = sami_jax.load("path/to/model")
    constitutions = sami_jax.compose(principles, len(queries))              # [B][C] texts
    responses = sami_jax.sample(model, queries, constitutions)              # [B][C] texts
    s = sami_jax.score(model, queries, constitutions, responses)            # [B, C, C] nats
    training = sami_jax.begin(model, config)
    training, metrics = sami_jax.update(training, queries, constitutions, responses)
    sami_jax.save(training.model, "aligned")

and `sami_jax.run(config, workdir)` is all of it, three times over, with its evaluation. Everything is offered as an attribute of
`sami_jax`. What a user has to mend is raised as `sami_jax.UserError`, whose message is one line.
"""

from sami_jax.api.model import Model as Model
from sami_jax.api.model import load as load
from sami_jax.api.model import save as save
from sami_jax.api.texts import compose as compose
from sami_jax.api.texts import explain as explain
from sami_jax.api.texts import read_principles as read_principles
from sami_jax.api.texts import read_queries as read_queries
from sami_jax.api.texts import sample as sample
from sami_jax.api.texts import score as score
from sami_jax.api.training import Training as Training
from sami_jax.api.training import begin as begin
from sami_jax.api.training import load_config as load_config
from sami_jax.api.training import run as run
from sami_jax.api.training import update as update
from sami_jax.contrast.objective import contrastive_loss as contrastive_loss
from sami_jax.contrast.objective import mi_lower_bound as mi_lower_bound
from sami_jax.contrast.objective import mi_posterior_bound as mi_posterior_bound
from sami_jax.principles.principle import Principle as Principle
