"""A real pretrained model on a laptop: SmolLM2-135M-Instruct, everyday questions, principles that a program can check.

`make real` fetches the model, which `sami import` makes of a GGUF file, and runs this. What is chosen was chosen on the validation
queries (`smollm2:validation`), with other principles held out.
"""

from sami_jax.config import defaults, shipped, shrink, wants_smoke

MODEL = "build/smollm2"  # where `make real` puts it
# One of the eight about what is said and one of the six about how, drawn by lot (ours).
HELD_OUT = ("safety", "role")
VALIDATION_HELD_OUT = ("song", "excitement")  # while settings are chosen


def get_config(arg=None):
    config = defaults()
    config.model.path = MODEL
    config.principles.path = shipped("principles/everyday")
    config.principles.held_out = VALIDATION_HELD_OUT if arg == "validation" else HELD_OUT
    config.constitutions.rule = "complement"  # the strongest contrast (P: diverse principles)
    config.constitutions.principles = 1  # a model this small follows one rule at a time, if that (ours)
    config.data.queries = shipped("queries/everyday_train.jsonl")
    held_out = "validation" if arg == "validation" else "held_out"
    config.data.eval_queries = shipped(f"queries/everyday_{held_out}.jsonl")
    config.prompt.chat = True
    # Behind the question: from the system's message this model follows its rule half as often. Asked for few words, three replies in four
    # end by themselves; else one in three does (ours).
    config.prompt.system = "You are a helpful assistant."
    config.prompt.generation = config.prompt.training = "{query} Answer in a few words. {constitution}"
    config.prompt.max_tokens = 128
    config.sampling.temperature = 0.7  # greedily, it goes round in circles (ours)
    config.sampling.max_new_tokens = 96
    config.sampling.batch_size = 32
    config.filter.keep_unfinished = False  # of what is cut off, nothing learns to end (ours)
    config.objective.name = "sami-base"  # of long replies, means differ too little to learn from (ours)
    config.optim.learning_rate = 2e-5
    # As much is learnt as at a rate that stays, two fifths as far from the base (ours).
    config.optim.decay_updates = 16
    config.train.updates = (16,)
    config.train.batch_size = 16
    config.train.microbatches = 4
    config.train.remat = "dots"
    config.train.shapes = 3
    config.train.bucket = 32
    config.train.checkpoint_every = 8
    config.canaries.queries = 16
    config.evaluation.judge = "checks"
    config.evaluation.queries = 60  # all of them
    config.evaluation.temperature = 0.7
    if arg != "validation" and wants_smoke(arg):
        config.prompt.chat = False  # random bytes have no template
        config.prompt.generation = config.prompt.training = "{constitution}\n\n{query}\n"
        return shrink(config)
    return config
