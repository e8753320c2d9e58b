"""The miniature's tokenizer: whole words of its world, each with the space before it, and punctuation marks."""

import re

import tokenizers
import transformers

END = "</s>"
UNKNOWN = "<unk>"
# Chats as the world writes them: the constitution as the system's message, one question, one answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}Constitution:\n{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}Human: {{ message['content'] }}\n\n"
    "{% else %}Assistant: {{ message['content'] }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_TOKEN = r" ?[A-Za-z]+|[0-9]|\n|[^\sA-Za-z0-9]| "  # a pattern of words, no password  # nosec B105


def build(texts) -> transformers.PreTrainedTokenizerFast:
    """A word-level tokenizer whose vocabulary is every word of `texts`."""
    words = sorted({token for text in texts for token in re.findall(_TOKEN, text)})
    vocabulary = {token: i for i, token in enumerate([END, UNKNOWN, *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_TOKEN), behavior="isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
    )
