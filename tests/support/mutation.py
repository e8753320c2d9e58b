"""Seeded damage to bytes, to JSON in them, and to a config's overrides."""

import json
from random import Random

DEEP = "\ue000deep\ue000"  # stands for nested lists, which json.dumps would not write
BYTES = (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\ud800", b"\\u0000",
         b"NaN", b"1e999", b"null", b"- ", b"&a *a", b"!!python/name:os.system", b"'", b"=cmd", b"9" * 5000, b"\x1b[2J",
         "\u202e🙂日本".encode(), b"a" * 70_000)  # fmt: skip
VALUES = (None, True, False, 0, -1, 1, 2, 2**31, 2**63, 10**30, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", " ", "0",
          "text", "\ud800", "\x00", "../../outside", "/etc/hostname", "🙂", "日本語", "\u202eabc", "x" * 70_000, "\x1b[2J<b>", "=1+1",
          [], {}, [[]], [None], [0], ["a"], {"a": None}, DEEP)  # fmt: skip


def damaged(content: bytes, rng: Random) -> bytes:
    """The content with one to three mutations, each of its bytes, of its lines or of a JSON value in it."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice((_of_bytes, _of_lines, _of_json, _of_json))(content, rng)
    return content


def override(fields: list[str], rng: Random) -> str:
    """A config override: some field, some value."""
    field = rng.choice(fields)
    if rng.random() < 0.1:
        field = rng.choice(
            (field[:-1], field.partition(".")[0], f"{field}.x", "", ".", "\x00", field + "[0]", "__class__", "to_dict")
        )
    values = (*VALUES, (), (1,), (-1,), (1.5,), ("a",), ("a", 1), (None,), ((1,),), [1], (2, 4, 6), (True,), (10**400,))
    value = rng.choice(values)
    text = value if isinstance(value, str) else repr(value)
    text = rng.choice(
        (text, text, text, f"'{text}'", f"({text},)", text[:-1], "1e400", "lambda: 1", "__import__('os')", "(" * 300)
    )
    return rng.choice(("--config.{}={}", "--config.{}={}", "--config.{}={}", "--config.{}{}", "--config.{}")).format(
        field, text.replace(DEEP, "[" * 5000)
    )


def _of_bytes(content: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    length = min(rng.choice((1, 1, 2, 7, 50)), len(content) - place)
    kind = rng.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + rng.choice(BYTES) + content[place:]
    if kind == 2:
        return content[:place] + content[place + length :]
    if kind == 3:
        return content[:place] + rng.choice(BYTES) + content[place + length :]
    flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in content[place : place + length])
    return content[:place] + flipped + content[place + length :]


def _of_lines(content: bytes, rng: Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        lines.insert(other, lines[one])
    elif kind == 1:
        del lines[one]
    elif kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(one, rng.choice((b"\n", b"\r\n", b"{}\n", b"[]\n", b"null\n", b"  \n", b"\xef\xbb\xbf\n")))
    return b"".join(lines)


def _of_json(content: bytes, rng: Random) -> bytes:
    """Changes a value of the whole, or of one line, if that is JSON."""
    try:
        return _changed(json.loads(content), rng)
    except (ValueError, RecursionError):
        lines = content.splitlines(keepends=True) or [b""]
        place = rng.randrange(len(lines))
        try:
            lines[place] = _changed(json.loads(lines[place]), rng) + b"\n"
        except (ValueError, RecursionError):
            return _of_bytes(content, rng)
        return b"".join(lines)


def _changed(value, rng: Random) -> bytes:
    spots = list(_spots(value))
    if not spots or rng.random() < 0.02:
        value = rng.choice(VALUES)
    else:
        holder, key = rng.choice(spots)
        kind = rng.randrange(6)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(("", "id", "x", str(key).upper(), "\ud800", "__class__"))] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, rng.choice(VALUES))
        elif kind == 3:
            holder[key] = [holder[key]]
        else:
            holder[key] = rng.choice(VALUES)
    text = json.dumps(
        value, ensure_ascii=rng.random() < 0.8, indent=rng.choice((None, None, 2)) if rng.random() < 0.1 else None
    )
    return text.replace(json.dumps(DEEP), "[" * 20_000 + "]" * 20_000).encode("utf-8", "surrogatepass")


def _spots(value):
    """(holder, key) of everything below."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield value, key
        yield from _spots(below)
