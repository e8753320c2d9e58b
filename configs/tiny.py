"""The default: the miniature base model, its own principles and queries, an exact judge. Minutes on two CPU cores."""

from sami_jax import miniature
from sami_jax.config import defaults, wants_smoke
from sami_jax.miniature import world


def get_config(arg=None):
    config = defaults()
    config.model.path = str(miniature.BASE)
    config.principles.path = str(miniature.PRINCIPLES)
    config.principles.held_out = ("enthusiasm", "friendship", "greeting")  # three of twelve, drawn by lot (ours)
    config.principles.held_out_phrasings = 1  # of five (ours)
    config.constitutions.rule = "complement"  # the strongest contrast (P: diverse principles)
    config.constitutions.principles = 3  # of nine trained (ours)
    config.data.queries = str(miniature.QUERIES / "train.jsonl")
    config.data.eval_queries = str(miniature.QUERIES / "held_out.jsonl")
    config.data.splits = 2  # (P)
    config.prompt.generation = config.prompt.training = world.PROMPT
    config.prompt.max_tokens = 128
    config.sampling.temperature = 1.0  # responses of a greedy model this small hardly differ (ours)
    config.sampling.top_p = 0.9  # leaves out the slips a small model makes at temperature 1 (P)
    config.sampling.max_new_tokens = 64  # the longest whole reply has 55 tokens
    config.sampling.batch_size = 128
    config.objective.kl_weight = 0.1  # keeps replies well formed where the contrast has no opinion (ours)
    config.optim.learning_rate = 2.5e-4  # a model of 0.8 M parameters bears more than 7 B do (ours)
    config.optim.epsilon = 1e-4  # of the size of a gradient: AdamW then leaves rare words' embeddings alone (ours)
    config.train.updates = (16, 16, 16)  # with 24, replies of an earlier base began to break (ours)
    config.train.batch_size = 64
    config.train.microbatches = 4
    config.train.remat = "dots"  # faster than "none" too: what is not stored need not be written and read
    config.train.checkpoint_every = 4
    config.train.shapes = 3
    config.train.bucket = 8
    config.canaries.queries = 64
    config.canaries.well_formed_drop = 0.06  # three standard errors of a difference in 128 replies, 97 % of them whole
    config.canaries.following_drop = 0.08  # likewise
    config.evaluation.judge = "miniature"
    config.evaluation.queries = 128  # all of them
    config.evaluation.temperature = 1.0  # the model as it is, slips included (ours)
    config.evaluation.top_p = 1.0
    config.evaluation.batch_size = 32
    if wants_smoke(arg):
        config.train.updates = (2, 2, 2)
        config.canaries.queries = 8
        config.evaluation.queries = 16
    return config
