"""What a reader relies on in JSON content, checked in one place.

A shape is a type or a union of types; [shape], a list of such; (shape, shape), a list of just so many; {"key": shape}, an
object with these keys at least, of which one called "key?" may be missing; or {str: shape}, an object with any keys.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from sami_jax.data.jsonl import parse, read_json
from sami_jax.errors import UserError

NUMBER = int | float
LARGEST = 2**63  # whole numbers from here on are nobody's counts, and no float's either


def read_shaped(file: Path, shape, advice: str, parse: Callable[[bytes], Any] = parse) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: it cannot be read, or has another shape; names the place in it.
    """
    content = read_json(file, advice, parse)
    if wrong := misfit(content, shape):
        raise UserError(f"{file}: {wrong}; {advice}")
    return content


def misfit(content, shape, place: str = "") -> str | None:
    """Where and how the content differs from the shape; None where it fits."""
    if isinstance(shape, dict):
        if not isinstance(content, dict):
            return _wrong(content, place, "an object")
        if str in shape:
            parts = [(key, value, shape[str]) for key, value in content.items()]
        else:
            required = [key for key in shape if not key.endswith("?")]
            if missing := [key for key in required if key not in content]:
                return f"{f'{place}.' * bool(place)}{missing[0]} is missing"
            named = {key.removesuffix("?"): part for key, part in shape.items()}
            parts = [(key, content[key], part) for key, part in named.items() if key in content]
        found = (misfit(value, part, f"{place}.{key}" if place else key) for key, value, part in parts)
    elif isinstance(shape, list | tuple):
        if not isinstance(content, list):
            return _wrong(content, place, "a list")
        if isinstance(shape, tuple) and len(content) != len(shape):
            return _wrong(content, place, f"a list of {len(shape)}")
        parts = shape if isinstance(shape, tuple) else shape * len(content)
        found = (
            misfit(value, part, f"{place}[{n}]") for n, (value, part) in enumerate(zip(content, parts, strict=True))
        )
    else:
        kinds = get_args(shape) or (shape,)
        # To Python, True is a number.
        fits = isinstance(content, shape) and (not isinstance(content, bool) or bool in kinds or object in kinds)
        if fits and isinstance(content, int) and abs(content) >= LARGEST:
            return _wrong(content, place, "a number of that size")
        return None if fits else _wrong(content, place, getattr(shape, "__name__", str(shape)))
    return next(filter(None, found), None)


def _wrong(content, place: str, wanted: str) -> str:
    return f"{place or 'the content'} is {content!r:.40}, not {wanted}"
