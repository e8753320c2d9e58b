"""Chats of four shapes: the ids we ask and train on are those that transformers renders; roles that are not there; forged turns."""

import datetime
import re

import jinja2
import pytest
import tokenizers
import transformers
from support.chat_models import CORPUS, SHAPES, chat_tokenizer

from sami_jax.config import defaults
from sami_jax.config.checks import validate
from sami_jax.data.chat import CLOCK, DATE, Chat
from sami_jax.data.dialogue import Message
from sami_jax.data.pairs import encode_pairs
from sami_jax.data.replies import Replies
from sami_jax.data.templates import encode_prompt
from sami_jax.errors import UserError
from sami_jax.evaluation.explain import said_texts

SYSTEM = "Your reply follows this constitution:\n{constitution}"
CONSTITUTIONS = ["1. Say hello first.", "1. Never say hello."]
QUERY = "How do I fix the bike?"
REPLY = "Hello there, my friend. Perhaps you can fix the bike!"


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def tokenizer(shape):
    return chat_tokenizer(shape)


@pytest.fixture
def chat(shape, tokenizer):
    return Chat(tokenizer, shape, SYSTEM)


def with_template(template: str | dict | None) -> transformers.PreTrainedTokenizerFast:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=chat_tokenizer("qwen").backend_tokenizer, eos_token="<|endoftext|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def conversation(shape: str, constitution: str, *reply: str) -> list[dict]:
    """As its user would write it, who knows that Gemma has no system's role."""
    system = SYSTEM.replace("{constitution}", constitution)
    if shape == "gemma":
        asked = [{"role": "user", "content": f"{system}\n\n{QUERY}"}]
    else:
        asked = [{"role": "system", "content": system}, {"role": "user", "content": QUERY}]
    return [*asked, *({"role": "assistant", "content": text} for text in reply)]


def rendered(tokenizer, messages: list[dict], **options) -> list[int]:
    """Without any of our options."""
    return tokenizer.apply_chat_template(messages, return_dict=False, **options)


def test_prompts_are_what_transformers_renders(shape, tokenizer, chat):
    expected = rendered(tokenizer, conversation(shape, CONSTITUTIONS[0]), add_generation_prompt=True)
    assert chat.prompt(CONSTITUTIONS[0], QUERY) == expected
    assert encode_prompt(tokenizer, "{query}", CONSTITUTIONS[0], QUERY, 200, chat) == (expected, 0)
    assert expected.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)
    # A text encoded alone gets its begin-of-text: rendering and encoding would give two.
    assert tokenizer.encode("a")[:1] == ([tokenizer.bos_token_id] if tokenizer.bos_token else tokenizer.encode("a")[:1])


def test_examples_are_what_transformers_renders(shape, tokenizer, chat):
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids(SHAPES[shape][3])
    config = defaults().prompt
    config.training = "{query}"
    row = {"query": QUERY, "constitutions": CONSTITUTIONS, "responses": [REPLY, CORPUS[1]]}
    row |= {"finish_reasons": ["stop", "length"]}
    encoded = encode_pairs(
        [row], Replies(tokenizer, chat, len(tokenizer), (), chat.end_of_turn), config.training, config.max_tokens
    )
    [example] = encoded.examples
    assert encoded.cut == 0
    replies = [list(response) for response in example.responses]
    assert replies[0][-1] == chat.end_of_turn and chat.end_of_turn not in replies[0][:-1] + replies[1]
    for prompt, constitution in zip(example.prompts, CONSTITUTIONS, strict=True):
        for ids, text in zip(replies, row["responses"], strict=True):
            whole = rendered(tokenizer, conversation(shape, constitution, text))
            if shape == "mistral":  # forgets the system once there is a reply: what it replies to stands apart
                whole = whole[whole.index(tokenizer.convert_tokens_to_ids("[/INST]")) + 1 :]
            else:
                assert tuple(whole[: len(prompt)]) == prompt
                whole = whole[len(prompt) :]
            closed = ids if ids[-1] == chat.end_of_turn else [*ids, chat.end_of_turn]
            assert whole[: len(closed)] == closed
            # Behind the end of turn there is at most the line's end, which nobody samples.
            assert tokenizer.decode(whole[len(closed) :]).strip() == ""


def test_nobody_forges_a_turn(shape, tokenizer, chat):
    special = {token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token}
    special |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} - {"<unk>"}
    ids = set(tokenizer.convert_tokens_to_ids(list(special)))
    forged = "".join(sorted(special)) + "a" + "".join(sorted(special, reverse=True))

    def specials(found: list[int]) -> list[int]:
        return [id for id in found if id in ids]

    assert specials(chat.prompt(forged, forged)) == specials(chat.prompt("a", "a"))
    assert specials(chat.reply(forged)) == []


def test_texts_of_a_replys_tokens_join_to_it(shape, chat):
    text = REPLY if shape == "mistral" else f"{REPLY} café ☕ 三つ"
    ids = chat.reply(text)
    pieces = said_texts(chat.tokenizer, ids)
    assert "".join(pieces) == text and len(pieces) == len(ids)
    assert "Hello" in pieces[:2]


def test_a_query_that_is_too_long_is_cut_the_frame_never(tokenizer, chat):
    whole = chat.prompt(CONSTITUTIONS[0], QUERY)
    ids, lost = encode_prompt(tokenizer, "{query}", CONSTITUTIONS[0], QUERY, len(whole) - 3, chat)
    assert 0 < lost == len(whole) - len(ids) and len(ids) <= len(whole) - 3
    empty = chat.prompt(CONSTITUTIONS[0], "")
    assert ids[-1] == whole[-1] == empty[-1] and ids[: len(empty) // 2] == empty[: len(empty) // 2]
    with pytest.raises(UserError, match="template and constitution alone"):
        encode_prompt(tokenizer, "{query}", CONSTITUTIONS[0], QUERY, len(empty) - 1, chat)


def test_white_space_around_a_reply_stays(chat):
    assert chat.tokenizer.decode(chat.reply("\n Hello there.\n\n")) == "\n Hello there.\n\n"
    assert chat.reply("") == [] != chat.reply(" \n")


def test_what_would_join_the_prompt_is_tokenised_apart():
    template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    chat = Chat(with_template(template), "here")
    prompt, joined = chat.tokenizer.encode("assistant:"), chat.tokenizer.encode("assistant::Hello")
    assert joined[: len(prompt)] != prompt
    assert chat.reply(":Hello") == chat.tokenizer.encode(":Hello")


def test_a_constitution_that_is_not_stated_leaves_no_trace(shape, tokenizer):
    for system, said in (("Be kind. {constitution}", "Be kind."), ("{constitution}", "")):
        assert Chat(tokenizer, shape, system).prompt("", QUERY) == Chat(tokenizer, shape, said).prompt("unused", QUERY)


def test_without_system_text_there_is_no_system_message(shape, tokenizer):
    ids = Chat(tokenizer, shape).prompt("unused", QUERY)
    assert ids == rendered(tokenizer, [{"role": "user", "content": QUERY}], add_generation_prompt=True)


def test_a_system_that_is_left_out_goes_to_the_user():
    deaf = "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    chat = Chat(with_template(deaf), "deaf", "{constitution}")
    assert chat.tokenizer.decode(chat.prompt("Be calm.", "Why?")) == "<|im_start|>Be calm.\n\nWhy?<|im_end|>"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "here: its tokenizer has no chat template"),
        ("{{ raise_exception('no\nway') }}", r"here: its chat template refuses a conversation \(no way\)"),
        ("{% for %}", "here: its chat template refuses a conversation"),
        ("{{ ['Hi', 'Hello'] | random }}", r"here: its chat template draws at random \(\| random\)"),
        ("{{ lipsum() }}", r"here: its chat template draws at random \(lipsum\)"),
        ("{{ messages.append(messages[0]) }}", "refuses a conversation .*unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses a conversation .*unsafe"),
    ],
)
def test_templates_that_cannot_be_rendered(template, words):
    with pytest.raises(UserError, match=words):
        Chat(with_template(template), "here")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ raise_exception('I only listen') }}{% endif %}{{ m['content'] }}{% endfor %}",
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>{% endfor %}",
    ],
    ids=["never closed", "no replies", "replies are left out"],
)
def test_templates_that_ask_but_cannot_be_trained_on(template):
    chat = Chat(with_template(template), "here")
    assert chat.end_of_turn is None and chat.prompt("", QUERY)
    with pytest.raises(UserError, match="here: its chat template does not put a reply"):
        chat.reply(REPLY)


THOUGHTS = ("<think>", "</think>", "<tool_call>", "</tool_call>")  # added, and not special
TURNS = "{% for m in messages %}{% if m['role'] == 'assistant' %}REPLY{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
# How templates write a reply again, and how they ask for one.
THINKING = {
    "as Qwen 3: each reply gets a thought, if an empty one": (
        "<|im_start|>assistant\n<think>\n{{ m['content'].split('</think>')[0].split('<think>')[-1] | trim if '</think>' in m['content'] else '' }}\n</think>\n\n"
        "{{ m['content'].split('</think>')[-1] | trim }}<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    "as DeepSeek R1: the prompt opens the thought, replies lose it": (
        "<|im_start|>assistant\n{{ m['content'].split('</think>')[-1] | trim }}<|im_end|>\n",
        "<|im_start|>assistant\n<think>\n",
    ),
    "as Hermes: replies stay": ("<|im_start|>assistant\n{{ m['content'] }}<|im_end|>\n", "<|im_start|>assistant\n"),
}


@pytest.fixture(params=THINKING)
def thinking(request) -> Chat:
    reply, asks = THINKING[request.param]
    template = TURNS.replace("REPLY", reply) + "{% if add_generation_prompt %}" + asks + "{% endif %}"
    backend = tokenizers.Tokenizer.from_str(chat_tokenizer("qwen").backend_tokenizer.to_str())
    backend.add_tokens(list(THOUGHTS))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.chat_template = template
    return Chat(tokenizer, "here")


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nHello\n</think>\n\nYou can.",
        "<think>\nHello",
        "Hello\n</think>\n\nYou can.",
        "<think>\n\n</think>\n\nYou can.",
        "<think></think>You can. ",
        "\n\n<tool_call>\n{}\n</tool_call>",
        "You <|im_end|> can.",
        "You can.",
    ],
)
def test_thoughts_and_tool_calls_are_the_ids_that_were_sampled(thinking, text):
    tokenizer = thinking.tokenizer
    assert thinking.end_of_turn == tokenizer.convert_tokens_to_ids("<|im_end|>")
    expected = []
    for piece in filter(None, re.split(f"({'|'.join(THOUGHTS)})", text)):
        plain = tokenizer.backend_tokenizer.model.tokenize
        if piece in THOUGHTS:
            expected.append(tokenizer.convert_tokens_to_ids(piece))
        else:
            words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(piece)
            expected += [token.id for word, _ in words for token in plain(word)]
    assert thinking.reply(text) == expected
    # In a query they are letters, as far as the template writes them itself.
    asked = thinking.prompt("", f"a{text}b")
    assert asked.count(thinking.end_of_turn) == thinking.prompt("", "a").count(thinking.end_of_turn)
    marks = [id for id in map(tokenizer.convert_tokens_to_ids, THOUGHTS[:2]) if "<think>" in tokenizer.chat_template]
    assert [id for id in asked if id in marks] == [id for id in thinking.prompt("", "a") if id in marks]


DATED = (
    "{% if strftime_now is defined %}{% set day = strftime_now('FORMAT') %}{% else %}{% set day = 'never' %}{% endif %}"
)
SAID = "{% for m in messages %}{{ day }}: {{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    "format", ["%d %b %Y", "%Y-%m-%d", "%A, %B %-d, %Y", "%H:%M:%S %p", "%j%%d %% 100%", "%y%m%d%Z", "%e %F %%%d"]
)
def test_a_template_that_asks_for_the_day_is_told_the_one_that_is_given(format):
    told = {}
    for date in (None, "2023-01-05"):
        chat = Chat(with_template(DATED.replace("FORMAT", format) + SAID), "here", **({"date": date} if date else {}))
        day = datetime.datetime.fromisoformat(date or DATE)
        told[date] = chat.tokenizer.decode(chat.prompt("", "Why?"))
        assert told[date] == f"{day.strftime(format)}: Why?<|im_end|>" and chat.date == day.date().isoformat()
    assert len(set(told.values())) == 2 or not re.search("%-?[dejYyF]", format)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ strftime_now('%s') }}", "1721952000"),  # strftime's own is another in each time zone
        ("{% set clock = strftime_now %}{{ clock(format='%Y') }}", "2024"),
        ("{% macro day() %}{{ strftime_now('%Y') }}{% endmacro %}{{ day() }}", "2024"),
        ("\n  {% if true %}\n{{ strftime_now('%Y') }}{% endif %}", "\n2024"),
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}",
            "26 Jul 2024",
        ),
    ],
)
def test_the_clock_in_all_its_places(template, told):
    assert Chat(with_template(template), "here")._template.startswith(CLOCK)
    chat = Chat(with_template(template + "{{ messages[0]['content'] }}"), "here")
    assert chat.tokenizer.decode(chat.prompt("", "!")) == f"{told}!"


def test_templates_that_ask_for_no_day_have_none(chat):
    assert chat.date is None


@pytest.mark.parametrize("date", ["26 Jul 2024", "2024-7-26", "20240726", "2024-02-30", ""])
def test_dates_that_are_none(date, tokenizer):
    with pytest.raises(UserError, match="must be a date, YYYY-MM-DD"):
        Chat(tokenizer, "here", date=date)


def test_of_several_templates_the_default_is_taken():
    several = {"tool_use": "tools{{ messages[0]['content'] }}", "default": "{{ messages[0]['content'] }}<|im_end|>"}
    chat = Chat(with_template(several), "here")
    assert chat.tokenizer.decode(chat.prompt("", "Why?")) == "Why?<|im_end|>"
    with pytest.raises(UserError, match="here: no chat template to ask by"):
        Chat(with_template({"one": "a", "other": "b"}), "here")


def test_turns_that_a_template_refuses(shape, chat):
    twice = [Message("user", "a")] * 2
    if shape in ("mistral", "gemma"):
        with pytest.raises(UserError, match="roles must alternate"):
            chat.encode(twice)
    else:
        assert chat.encode(twice)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": "{constitution} {query}"}, r"config.prompt.training: the system's message states"),
        ({"system": "Be kind."}, "config.prompt.generation: the template lacks {constitution}"),
        ({"generation": "Why?"}, "config.prompt.generation: the template lacks {query}"),
        ({"system": "{query} {constitution}"}, "config.prompt.system=.*must be free of {query}"),
        ({"date": "26 Jul 2024"}, "config.prompt.date='26 Jul 2024': must be a date, YYYY-MM-DD"),
        ({}, None),
        ({"system": "", "generation": "{constitution} {query}", "training": "{query} {constitution}"}, None),
    ],
)
def test_prompts_of_a_chat_are_checked(changes, words):
    config = defaults()
    config.model.path = config.principles.path = config.data.queries = "here"
    config.prompt.update({"chat": True, "generation": "{query}", "training": "{query}", **changes})
    if words is None:
        validate(config)
        config.filter.prefix = "The post"
        words = "config.filter.prefix='The post': must be '' where config.prompt.chat is True"
    with pytest.raises(UserError, match=words):
        validate(config)


def test_the_sandbox_is_the_libraries_own():
    """A template may not change what it is given, nor reach Python's inside; see also the refusals above."""
    with pytest.raises(jinja2.exceptions.SecurityError):
        with_template("{{ messages.append(1) }}").apply_chat_template([{"role": "user", "content": "a"}])
