"""Every setting of a run: its default, unit, meaning and source. config/checks.py checks them.

Files in configs/ start from `defaults()` and change fields. Sources: (P) the paper, arXiv 2404.14313; (R) its authors'
code; (ours) a choice made here, with its reason.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from sami_jax.contrast.family import FAMILY
from sami_jax.data.chat import DATE
from sami_jax.errors import UserError
from sami_jax.ground.version import PACKAGE
from sami_jax.miniature.untrained import RANDOM_BYTES

SYSTEM = "Your reply follows this constitution:\n{constitution}"  # begins the user's message where a chat has no system
# How replies begin that refuse. What ordinary replies begin with too ("I cannot recommend it enough", 使用できません) is not among them.
REFUSALS = (
    *(f"I {cannot} {verb}" for cannot in ("cannot", "can't") for verb in ("help", "assist", "provide", "answer", "comply", "do that")),
    *("I'm sorry, but", "I am sorry, but", "I apologize, but", "I'm unable to", "I am unable to", "I won't be able to", "as an AI"),
    *("Es tut mir leid, aber", "Je suis désolé, mais", "Lo siento, pero", "Mi dispiace, ma", "抱歉\uff0c我", "对不起\uff0c我"),
    *("申し訳ありませんが", "申し訳ございませんが", "お答えできません", "お手伝いできません", "お応えできません", "回答できません"),
)  # fmt: skip


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # of everything random: sampling, composing, data order (ours)

    c.model = ConfigDict()
    # Folder of the base model in Hugging Face format, or a small untrained one: "random-bytes" | "random-bytes-mixture".
    c.model.path = ""  # no default
    c.model.shape = ""  # published shape, of models/published.py, that `sami plan` takes where the folder is not here
    c.model.export_dtype = "float32"  # of exported weights; every iteration samples from the exported model
    c.model.attention = "xla"  # xla: anywhere | cudnn: NVIDIA GPUs, bfloat16 | splash: TPUs (ours)

    c.mesh = ConfigDict()  # devices along each axis; one may be -1, the rest
    c.mesh.data = 1  # replicas, each with its share of the queries
    c.mesh.fsdp = -1  # queries and weights both split; weights are gathered layer by layer
    c.mesh.expert = 1  # queries and the experts of a mixture split
    c.mesh.tensor = 1  # heads, MLP width and vocabulary split

    c.principles = ConfigDict()
    c.principles.path = ""  # folder of principle files (*.yaml) or of the authors' constitution files (*.json)
    c.principles.held_out = ()  # ids kept from training, used in evaluation only (P: diverse principles, 15 / 5)
    c.principles.held_out_drawn = 0  # how many more are kept from training, drawn by the seed (P: 5 of 20)
    c.principles.held_out_phrasings = 0  # last wordings of each principle kept from training (ours)

    c.review = ConfigDict()
    c.review.fraction = 1.0  # share of the principles, drawn by a hash of the id, that people must have approved (ours)

    c.constitutions = ConfigDict()
    c.constitutions.rule = "positive_vs_rest"  # complement | positive_vs_rest (R) | iid (P, algorithm 1)
    c.constitutions.principles = 2  # principles a constitution states (P)
    c.constitutions.count = 2  # C, constitutions a query is answered under (P: 2 everywhere)

    c.data = ConfigDict()  # formats and recipes: docs/data.md
    c.data.queries = ""  # trained on: a .jsonl, .json, .csv or .parquet file, a folder of such, or hub:OWNER/NAME
    c.data.eval_queries = ""  # likewise, for evaluation, of other texts; "" takes the last eval_fraction of `queries`
    c.data.eval_fraction = 0.1  # share of `queries` held out where eval_queries is "" (ours)
    c.data.column = ""  # of the query; "" takes the first there is of query, prompt, messages, chosen, info.post (ours)
    c.data.id_column = "id"  # of the rows' ids; "" numbers the rows, as where no row has it (ours)
    c.data.subset = ""  # of a folder or hub dataset: the name of a configuration, or a folder in it; "" is all
    c.data.split = "train"  # of a folder or hub dataset: trained on (its own names)
    c.data.eval_split = "test"  # likewise, for evaluation
    c.data.revision = ""  # commit of the hub dataset, 40 hex digits; must be given: names can move (ours)
    c.data.splits = 2  # splits of the queries, no text in two of them, that take turns by iteration (P)

    c.prompt = ConfigDict()  # texts with the fields {constitution} and {query}
    c.prompt.chat = False  # ask by the tokenizer's own chat template, as instruct models want it (ours; P: base models)
    c.prompt.system = SYSTEM  # of a chat, the system's message: {constitution}; "" sends none (ours)
    c.prompt.date = DATE  # told to chat templates that ask for the day, YYYY-MM-DD; the same on every day (ours)
    c.prompt.generation = ""  # template under which responses are sampled; in a chat, of the user's message
    c.prompt.training = ""  # template under which they are scored and trained on; may be shorter (P)
    c.prompt.bare = ""  # without {constitution}: distill is trained on it; measured too where it is given (ours)
    c.prompt.shuffle = True  # shuffle the order of the principles in training prompts (R)
    c.prompt.max_tokens = 1024  # longest prompt, tokens; the query's end is cut to fit, and counted (ours)

    c.sampling = ConfigDict()
    c.sampling.engine = "own"  # own | server: another engine samples, by the group `server` (ours)
    c.sampling.temperature = 0.0  # 0 is greedy (P)
    c.sampling.top_p = 0.9  # nucleus probability; no effect when greedy (P)
    c.sampling.top_k = 0  # likeliest tokens kept; 0 keeps all
    c.sampling.max_new_tokens = 350  # tokens (P)
    c.sampling.stop = ()  # texts that end a response
    # Of contrastive decoding, in evaluation too: how far logits are moved on from those under the opposite constitution, as a multiple
    # of their difference; a response takes two rows. For the rule complement, which has opposites (P: none; arXiv 2305.14739).
    c.sampling.contrast = 0.0  # 0 samples from the model itself
    c.sampling.batch_size = 64  # rows decoded together (ours: memory)

    c.server = ConfigDict()  # of sampling.engine "server", a server of the OpenAI protocol (ours): docs/serving.md
    # Started for each model that samples, without a shell, and ended before anything is trained; {model} and {port} are filled in.
    c.server.command = ()  # program and arguments; () asks the server at `address`
    c.server.address = ""  # base URL of a server that is there, for example http://localhost:8000/v1
    c.server.load = ()  # how that is told to load a model: path, and field that names the folder; () where requests name it
    c.server.gguf = ""  # f32 | f16 | bf16 | q8_0: {model} is a GGUF file, as llama.cpp wants it; "" is a folder
    c.server.name = ""  # of the model in requests; "" gives its folder or file
    c.server.key_variable = "OPENAI_API_KEY"  # environment variable that holds the server's key
    c.server.start_within = 900.0  # seconds in which a server that was started must answer
    c.server.timeout = 600.0  # seconds that a request may take
    c.server.concurrency = 16  # requests at a time
    c.server.disagreement = 0.1  # nats a token by which its log-probs may differ from the trainer's, in the mean

    c.filter = ConfigDict()  # applied to responses before training (R); every drop is counted by reason
    c.filter.keep_after = ""  # in a text that thinks aloud first, the response is what follows the last of this (P)
    c.filter.prefix = ""  # put before each response: the primed words its generation prompt ends with
    c.filter.cut_at = ()  # texts from which on a response is cut away
    c.filter.forbidden = ()  # texts that drop the query's responses
    c.filter.end_with = ()  # a response must end in one of these; () accepts any end
    c.filter.keep_echo = False  # keep responses that repeat their constitution: much information, no obedience (ours)
    c.filter.keep_unfinished = True  # keep queries with a response that max_new_tokens cut off (R: yes)
    c.filter.keep_equal = False  # keep queries whose responses are all equal: no contrast to learn

    c.objective = ConfigDict()
    # Sets the fields up to bare, but for those that are set themselves: a row of contrast/family.py.
    c.objective.name = "sami"  # sami (P) | sami-base | dpo | mipo | simpo | ipo | sft | distill; table: docs/method.md
    named = functools.partial(_named, c.objective.get_ref("name"))  # evaluated when it is asked for
    c.objective.normalize = named("normalize")  # mean over response tokens (R) | sum (P, as written)
    c.objective.beta = named("beta")  # scale of the critic, X = beta (S - R): an inverse temperature (P: 1)
    c.objective.over_base = named("over_base")  # take off R, the base's own log-likelihoods (P: no)
    c.objective.row_weight = named("row_weight")  # of the contrast over responses (P: both one half)
    c.objective.column_weight = named("column_weight")  # of the contrast over constitutions
    c.objective.squared = named("squared")  # leads are to be 1/2 in X, by squares, in place of cross-entropies (IPO)
    c.objective.margin = named("margin")  # by which X must lead, in its units, to count as level (SimPO's gamma)
    c.objective.sft_weight = named("sft_weight")  # of the mean log-likelihood a token of own responses, nats (ours)
    c.objective.bare = named("bare")  # they are scored behind prompt.bare, and those under antitheses left out (ours)
    c.objective.score_eos = False  # score the end-of-text token where a response ended by itself (R: no; chats: always)
    c.objective.kl_weight = 0.0  # of KL(policy || base), nats (P, which calls it beta: 0 in every published run)
    c.objective.balance_weight = 0.0  # of the load-balancing loss of a mixture of experts, which is 1 at best (Switch)
    c.objective.router_z_weight = 0.0  # of the squared logsumexp of its router's logits (ST-MoE: 1e-3)

    c.optim = ConfigDict()
    c.optim.name = "adamw"  # adamw (P) | rmsprop (R) | adafactor: hardly any state | lion: one moment
    c.optim.learning_rate = 5e-7  # (P)
    c.optim.warmup_updates = 0  # updates of linear warm-up; the first is never 0 (ours)
    c.optim.decay_updates = 0  # updates behind it, over which the rate falls, linearly to nothing; 0: it stays (ours)
    c.optim.b1 = 0.9  # decay of the first moment of AdamW (P: library default) and Lion
    # Where b2 is -1: 0.999 for AdamW (P: library default), 0.99 for RMSprop (R) and Lion. The manifest has the number.
    c.optim.b2 = -1.0  # decay of the second moment; RMSprop's smoothing; Lion's memory; -1: the optimizer's own (ours)
    c.optim.epsilon = 1e-8  # added to the root of the second moment
    c.optim.weight_decay = 0.0  # decoupled, of any optimizer, per update times learning rate (ours)
    c.optim.clip_norm = 1.0  # global gradient norm (P)
    c.optim.moment_dtype = "float32"  # bfloat16 halves the moments, which are then rounded by chance (ours)
    c.optim.offload = False  # moments rest in host memory: room for activations, a copy there and back an update (ours)

    c.lora = ConfigDict()  # low-rank adapters beside frozen weights, in place of training them all (ours)
    c.lora.rank = 0  # of each adapter; 0 trains all weights
    c.lora.alpha = 16.0  # adapters are scaled by alpha / rank
    # Of the frozen matrices, dequantized where they are used: int8 takes 8.25, nf4 (QLoRA) 4.25 bits a weight in place of 16 or 32.
    c.lora.base = ""  # float32 | bfloat16 | int8 | nf4: how a run holds its base; "" is train.compute_dtype (ours)
    c.lora.targets = ()  # of query, key, value, output, gate, up, down; () is all that the model has: experts have none

    c.train = ConfigDict()
    c.train.updates = (2, 4, 6)  # updates of each iteration; as many iterations as entries (P)
    c.train.batch_size = 128  # queries an update (P)
    c.train.microbatches = 16  # parts a batch is accumulated over; exact, so a matter of memory alone (R)
    # float32 keeps moves of 5e-7, but where compute_dtype is bfloat16, its cast takes them away again (docs/method.md).
    c.train.param_dtype = "float32"  # of the weights that are trained; bfloat16 where compute_dtype is (R)
    c.train.rounding = "stochastic"  # of moves of bfloat16 weights, by chance: nothing is lost on average | nearest (R)
    c.train.compute_dtype = "float32"  # of forward and backward; bfloat16 on accelerators
    c.train.remat = "full"  # what the backward pass recomputes: none | dots | full (ours: memory)
    # Where it is 0: as few as a disk of 0.5 GB/s writes in a twentieth of the time of the updates of 8 GPUs; the manifest has the number.
    c.train.checkpoint_every = 0  # updates between checkpoints; 0: by the model's size, 1 for small ones (ours)
    c.train.max_skipped_updates = 3  # of a stage, whose loss or gradient is no number; one more ends it (ours)
    c.train.shapes = 8  # row lengths that microbatches are padded to, at most; each is compiled once (ours)
    c.train.bucket = 64  # tokens; row lengths are multiples of it (ours)
    c.train.constitutions_at_once = 0  # divides C; 0: all. Fewer need less memory, and are computed twice (ours)

    c.canaries = ConfigDict()  # fixed queries watched at each checkpoint for signs of collapse (ours)
    c.canaries.action = "stop"  # stop: keep the last good checkpoint and end | alert: say so and go on | off
    c.canaries.queries = 32  # first of the training queries, each under principles and under their antitheses
    c.canaries.well_formed_drop = 0.15  # share of replies, below the base's, that may cease to be whole
    c.canaries.length_factor = 2.5  # replies may grow or shrink to this multiple of the base's mean length
    c.canaries.repetition_rise = 0.2  # share of a reply's 4-token runs, above the base's, that may be repeated ones
    c.canaries.echo_rise = 0.1  # share of replies, above the base's, that may repeat their constitution
    c.canaries.refusal_rise = 0.2  # share of replies, above the base's, that may refuse, on both sides alike
    c.canaries.saturation = 0.9  # share of its cap, log 2, from which the MI bound counts as saturated
    c.canaries.following_drop = 0.15  # fall of following below its best that, with a saturated bound, fires
    c.canaries.logprob_drop = 0.5  # likewise, where no judge tells following: nats a token, of the base's own replies
    c.canaries.refusals = REFUSALS  # texts that mark a refusal in a reply's first words, letter case aside
    c.canaries.false_alarms = 0.01  # share of sound runs, at most, in which a rule fires by chance

    c.evaluation = ConfigDict()
    # Training never sees what a judge says. `checks` are in the principles' files; a folder's model, or a server's, is asked.
    c.evaluation.judge = "none"  # none | checks | miniature | a model's folder | its name at evaluation.endpoint
    c.evaluation.endpoint = ""  # base URL of an OpenAI-compatible server that has the judge
    c.evaluation.api = "chat"  # of that server: chat | completions; of a folder: whether its template is used
    c.evaluation.key_variable = "OPENAI_API_KEY"  # environment variable that holds the server's key
    c.evaluation.timeout = 120.0  # seconds that a request may take
    c.evaluation.concurrency = 8  # requests at a time
    c.evaluation.judge_tokens = 400  # of a judge's reply, at most
    c.evaluation.judged = 100  # responses of a set, drawn by lot, that such a judge is asked about at a measurement
    c.evaluation.queries = 250  # first of the evaluation queries (P)
    c.evaluation.temperature = 0.0  # as sampling.temperature
    c.evaluation.top_p = 0.9  # as sampling.top_p
    c.evaluation.batch_size = 8  # queries scored together (ours: memory)

    c.track = ConfigDict()  # who is told how a run goes (ours)
    c.track.to = ("tensorboard",)  # any of tensorboard, wandb, mlflow; () tells nobody
    c.track.project = "sami"  # project of W&B, experiment of MLflow
    c.track.name = ""  # of the run there; "" takes its folder's
    return c


class _Lookup(NamedTuple):
    """How a lazy field is computed, in the shape that ml_collections wants."""

    fn: Callable  # of the field's own default and the values of args
    args: tuple[FieldReference, ...]


def _named(name: FieldReference, field: str) -> FieldReference:
    """A field of the objective: what its name says, whenever that is set, until the field is set itself."""

    def of_name(default, name: str):
        return getattr(FAMILY[name], field) if name in FAMILY else default

    return FieldReference(getattr(FAMILY["sami"], field), op=_Lookup(of_name, (name,)))


def paper_training(config: ConfigDict) -> None:
    """Sampling and training as published for mistral-7b, but that moves to its bfloat16 weights are rounded by chance."""
    config.sampling.temperature = 0.0  # greedy (P)
    config.sampling.top_p = 0.9  # nucleus probability; no effect when greedy (P)
    config.sampling.max_new_tokens = 350  # tokens (P)
    config.optim.name = "adamw"  # (P); rmsprop is (R)
    config.optim.learning_rate = 5e-7  # (P), found where rounding lost most of each update; here all of it arrives
    config.optim.clip_norm = 1.0  # global gradient norm (P)
    config.train.updates = (2, 4, 6)  # updates of each iteration, from 256, 512 and 768 queries (P)
    config.train.batch_size = 128  # queries an update (P)
    config.train.microbatches = 16  # of 8 queries, one for each of 8 devices (P)
    config.train.compute_dtype = "bfloat16"  # (P)
    config.train.param_dtype = "bfloat16"  # (R); what is trained is what is computed with, measured and published
    config.train.rounding = "stochastic"  # (ours): to the nearest, as in (R), hardly a move of 5e-7 remains
    config.model.export_dtype = "bfloat16"  # as the weights are: nothing is rounded on the way out (R)
    config.evaluation.queries = 250  # (P)


def shrink(config: ConfigDict) -> ConfigDict:
    """Any config as a smoke run: every stage on real text, a minute on CPU. A random byte-level model learns nothing."""
    config.model.path = RANDOM_BYTES
    config.model.shape = ""
    config.model.attention = "xla"
    config.mesh.update({"data": 1, "fsdp": -1, "expert": 1, "tensor": 1})  # whatever devices there are
    config.prompt.max_tokens = 1792  # bytes
    config.sampling.max_new_tokens = 48
    config.sampling.temperature = 1.0  # greedy, an untrained model gives one response to everything
    config.sampling.batch_size = 8
    config.filter.keep_after = ""  # random bytes never come to the point
    config.filter.keep_unfinished = True  # nor to an end
    config.filter.forbidden = ("[insert",)  # nor are they without any single character
    config.filter.end_with = ()
    config.optim.learning_rate = 1e-3
    config.train.updates = (1, 1, 2)
    config.train.batch_size = 4
    config.train.microbatches = 2
    config.train.compute_dtype = "float32"
    config.canaries.action = "alert"  # random bytes hardly have a shape to lose
    config.canaries.queries = 2
    config.evaluation.queries = 4
    config.evaluation.batch_size = 2
    return config


def wants_smoke(arg: str | None) -> bool:
    """Whether a config is asked for as FILE:smoke.

    Raises:
      UserError: it is asked for as something else, which no shipped config is.
    """
    if arg not in (None, "smoke"):
        raise UserError(f"--config: {arg!r:.60} behind the colon is not known; write :smoke, or leave it out")
    return arg == "smoke"


def shipped(path: str) -> str:
    """A file or folder of the configs folder: inside the package once installed, beside it in a checkout."""
    return str(config_folder() / path)


def config_folder() -> Path:
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def iterations(config: ConfigDict) -> range:
    """Numbers of the iterations, from 1."""
    return range(1, len(config.train.updates) + 1)
