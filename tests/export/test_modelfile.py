"""Modelfiles: their templates render what the tokenizers' own do."""

import re
from types import SimpleNamespace

import pytest
from support.chat_models import chat_tokenizer

from sami_jax import miniature
from sami_jax.export.modelfile import modelfile
from sami_jax.models.pretrained import open_model

CONVERSATIONS = [
    [("user", "How do I fix the bike?")],
    [("system", "Say hello."), ("user", "a\nb")],
    [("user", 'a "quoted" word'), ("assistant", "y"), ("user", "z  z")],
    [
        ("system", "1. One.\n2. Two."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
        ("user", "日本"),
    ],
]


def of_chat(shape: str) -> SimpleNamespace:
    tokenizer = chat_tokenizer(shape)
    return SimpleNamespace(tokenizer=tokenizer, end_tokens=(tokenizer.eos_token_id,))


def filled(content: str, messages: list[dict]) -> str:
    """What Go's text/template makes of the template of a Modelfile, whose form is this one."""
    template = re.search(r'^TEMPLATE """(.*?)"""$', content, re.S | re.M)[1]
    form = r"(?:{{ if not \.System }}(.*?){{ end }})?{{ range \.Messages }}(.*){{ end }}{{ end }}(.*)"
    unsaid, each, behind = re.fullmatch(form, template, re.S).groups()
    _, *cases = re.split(r'{{ (?:else )?if eq \.Role "(\w+)" }}', each)
    by_role = dict(zip(cases[::2], cases[1::2], strict=True))
    assert "{{" not in re.sub(r"{{ \.Content }}", "", "".join([unsaid or "", *by_role.values(), behind]))
    said = [by_role[message["role"]].replace("{{ .Content }}", message["content"]) for message in messages]
    return "".join(["" if messages[0]["role"] == "system" else unsaid or "", *said, behind])


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("shape", ["miniature", "llama3", "qwen"])
def test_the_template_is_the_models_own(shape, conversation):
    model = open_model(miniature.BASE) if shape == "miniature" else of_chat(shape)
    messages = [{"role": role, "content": content} for role, content in conversation]
    own = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    begins = model.tokenizer.bos_token if model.tokenizer.encode("") else ""  # put there by who reads the file
    assert begins + filled(modelfile(model, "model-f16.gguf"), messages) == own


def test_it_names_the_file_and_what_ends_a_reply():
    content = modelfile(open_model(miniature.BASE), "model-f16.gguf")
    assert content.startswith("FROM ./model-f16.gguf\n") and content.endswith('PARAMETER stop "</s>"\n')


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ loop.index }}{{ m.role }}{{ m.content }}{% endfor %}",
        "{{ strftime_now('%d') }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}{{ '{{' }}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}:{{ m.content | upper }}{% endfor %}",
    ],
)
def test_a_template_that_cannot_be_told_is_not(template):
    model = of_chat("qwen")
    kept, model.tokenizer.chat_template = model.tokenizer.chat_template, template
    try:
        assert modelfile(model, "model-f16.gguf") is None
    finally:
        model.tokenizer.chat_template = kept


@pytest.mark.parametrize("shape", ["mistral", "gemma"])
def test_nor_one_that_moves_the_systems_words_or_knows_none(shape):
    assert modelfile(of_chat(shape), "model-f16.gguf") is None
