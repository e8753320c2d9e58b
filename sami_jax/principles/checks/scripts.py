"""Which scripts a text's letters belong to, by their names in Unicode."""

import functools
import unicodedata
from collections import Counter

# By the first word of a letter's name in Unicode.
JAPANESE = {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}
CHINESE = {"CJK", "IDEOGRAPHIC", "BOPOMOFO"}
# Those that write words without spaces between them.
UNSPACED = JAPANESE | CHINESE | {"THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE"}


@functools.lru_cache(maxsize=20_000)
def script_of(character: str) -> str:
    """As "LATIN", "CYRILLIC", "CJK" or "HIRAGANA"; "" for what is no letter."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").split(" ")[0]


def scripts_of(text: str) -> Counter[str]:
    """How many letters of each script a text has; full-width and ornamental forms are the letters they stand for."""
    counted = Counter(text if text.isascii() else unicodedata.normalize("NFKC", text))
    found: Counter[str] = Counter()
    for character, count in counted.items():
        if script := script_of(character):
            found[script] += count
    return found
