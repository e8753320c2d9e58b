"""Drafting: the prompt a writer model gets, and the strict reading of its reply."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

from sami_jax.ground.endpoint import Refused, Unusable
from sami_jax.ground.redaction import redact
from sami_jax.ground.server_replies import answer_after_thoughts
from sami_jax.principles.files import ID
from sami_jax.principles.lint import NEAR, closest, similarity
from sami_jax.principles.principle import Principle, Source, content_hash

KEYS = ("id", "principle", "antithesis")
# For writers that complete text rather than chat: ends the prompt and begins the reply.
PRIME = "id:"
# Tokens a principle with its antithesis may take in a reply.
TOKENS_EACH = 200

PROMPT = """\
You write principles for how an assistant should respond.

Task: {task}

A principle states one quality that can be checked by reading a single response. Its antithesis asks for the opposite, in the same form and at about the same length. Neither mentions the other.

Answer with blocks of exactly three lines, and with nothing else; leave an empty line between blocks:

id: one_word_or_two
principle: One sentence.
antithesis: One sentence.

{examples}Write {count} new principles.{known}
"""


@dataclasses.dataclass(frozen=True)
class Reply:
    """One reply, read."""

    prompt: str
    text: str
    principles: tuple[Principle, ...]
    refused: tuple[tuple[str, str], ...]  # (block, why it is no principle)
    broken: str | None = None  # why it is not whole


def prompt_text(task: str, count: int, examples: Sequence[Principle], known: Sequence[Principle]) -> str:
    """What the writer is asked.

    Args:
      task: what responses are about, in the user's words.
      count: principles wanted in this reply.
      examples: shown as they should be written.
      known: not to be written again.
    """
    shown = "".join(
        f"id: {p.id}\nprinciple: {_one_line(p.phrasings[0][0])}\nantithesis: {_one_line(p.phrasings[0][1])}\n\n"
        for p in examples
    )
    written = f" There are already: {', '.join(p.id for p in known)}." if known else ""
    return PROMPT.format(
        task=_one_line(task), count=count, examples=f"Examples:\n\n{shown}" if shown else "", known=written
    )


def prompt_hash(prompt: str) -> str:
    return "sha256:" + hashlib.sha256(prompt.encode()).hexdigest()


def draft(
    ask: Callable[[str, int], str],
    model: str,
    task: str,
    count: int,
    examples: Sequence[Principle],
    known: Sequence[Principle],
    attempts: int,
) -> Iterator[Reply]:
    """Asks until `count` principles are drafted or `attempts` replies were read, yielding each reply as it comes.

    Args:
      ask: (prompt, attempt from 0) -> reply.
      model: the writer's name, kept in each principle's source.
      known: all principles there are, examples included; nothing like them is taken again.
    Raises:
      UserError: the writer would not answer another time either.
    """
    drafted: list[Principle] = []
    for attempt in range(attempts):
        prompt = prompt_text(task, count - len(drafted), examples, [*known, *drafted])
        text, broken = _asked(ask, prompt, attempt)
        reply = read_reply(prompt, text, model, [*known, *drafted], count - len(drafted), broken)
        drafted += reply.principles
        yield reply
        if len(drafted) >= count:
            return


def _asked(ask: Callable[[str, int], str], prompt: str, attempt: int) -> tuple[str, str | None]:
    """A reply, or as much of one as there is, and why it is not whole."""
    try:
        return ask(prompt, attempt), None
    except Refused:
        raise
    except Unusable as none:
        return none.text, none.reason


def read_reply(
    prompt: str, text: str, model: str, known: Sequence[Principle], wanted: int, broken: str | None = None
) -> Reply:
    """Reads blocks of exactly `id:`, `principle:`, `antithesis:`; whatever is not one is refused, with the reason. Thoughts are no
    part of a reply.

    Args:
      broken: why the reply is not whole, where it is not; its last block is not taken then.
    """
    taken: list[Principle] = []
    refused: list[tuple[str, str]] = []
    blocks = _blocks(answer_after_thoughts(text))
    if broken:
        refused.append((blocks.pop() if blocks else "", broken))
    elif text.strip() and not blocks:
        refused.append((text.strip(), "thoughts without an answer"))
    for block in blocks:
        if len(taken) == wanted:
            refused.append((block, f"more than the {wanted} asked for"))
        elif isinstance(read := _read_block(block, [*known, *taken]), str):
            refused.append((block, read))
        else:
            source = Source("writer", model, prompt_hash(prompt), content_hash(read))
            taken.append(dataclasses.replace(read, source=source))
    return Reply(prompt, text, tuple(taken), tuple(refused), broken)


def _blocks(text: str) -> list[str]:
    lines = "\n".join(line.strip() for line in text.strip().splitlines())
    return [block.strip() for block in lines.split("\n\n") if block.strip()]


def _read_block(block: str, known: Sequence[Principle]) -> Principle | str:
    """The principle, or why it is none."""
    lines = block.split("\n")
    if len(lines) != len(KEYS) or any(not line.startswith(f"{key}:") for line, key in zip(lines, KEYS, strict=True)):
        return "not the three lines id, principle, antithesis"
    id, text, antithesis = (line.split(":", 1)[1].strip() for line in lines)
    if not ID.fullmatch(id):
        return "its id is not a word"
    if redact(block) != block:
        return "it holds what looks like a secret"
    if not text or not antithesis:
        return "an empty text"
    if id in [p.id for p in known]:
        return f"the id {id} is taken"
    if similarity(text, antithesis) == 1:
        return "its antithesis says the same"
    same, other = closest(text, known)
    if same >= NEAR:
        return f"says nearly what {other} says"
    return Principle(id, ((text, antithesis),))


def _one_line(text: str) -> str:
    return " ".join(text.split())
