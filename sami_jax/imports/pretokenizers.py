"""How a byte-level vocabulary cuts texts before it merges, by the name that `tokenizer.ggml.pre` has for it.

A name stands for a published tokenizer.json, which is followed, and not for what llama.cpp makes of it: they differ where a vocabulary is
normalized (Qwen's is, to NFC). Names that stand for several tokenizers (`default`), or for one that was not looked at, are not here.
"""

from typing import NamedTuple

from tokenizers import Regex, normalizers, pre_tokenizers

# The endings that are cut off, with the words that follow (`CONTRACTIONS` of GPT-4's pattern), as Llama 3 has them.
_LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Llama 3's, but for digits, which stand alone.
_QWEN_2 = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
# Mistral's Tekken: words are cut where capitals follow small letters.
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class PreTokenizer(NamedTuple):
    pattern: str | None = None  # that cuts; None: GPT-2's
    digits: bool = False  # stand alone before that
    whole_words: bool = False  # a word that is a token is not merged of others (ignore_merges)
    normalized: bool = False  # to NFC
    begins: bool = False  # texts begin with the token for it where the file says nothing else, as in llama.cpp

    def cutting(self) -> pre_tokenizers.PreTokenizer:
        parts: list[pre_tokenizers.PreTokenizer] = (
            [pre_tokenizers.Digits(individual_digits=True)] if self.digits else []
        )
        if self.pattern:
            parts.append(pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"))
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not self.pattern))
        return pre_tokenizers.Sequence(parts)

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.normalized else None


_OF_LLAMA_3 = PreTokenizer(_LLAMA_3, whole_words=True, begins=True)
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(digits=True),
    "llama-bpe": _OF_LLAMA_3,
    "llama3": _OF_LLAMA_3,
    "llama-v3": _OF_LLAMA_3,
    "qwen2": PreTokenizer(_QWEN_2, normalized=True),
    "tekken": PreTokenizer(_TEKKEN, whole_words=True, begins=True),
}
