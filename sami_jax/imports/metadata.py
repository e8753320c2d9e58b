"""What a GGUF file says of its model, each entry asked for by name and by what it must be."""

from pathlib import Path
from typing import Any

import numpy as np

from sami_jax.errors import UserError

_MOST = 2**24  # of anything in a model, as of a config.json
_ABSENT: Any = object()


class Metadata:
    """Entries by key. It knows which were asked for: another, of those that change what is computed, is one we know nothing of."""

    def __init__(self, file: Path, values: dict[str, Any]):
        self.file, self._values, self._asked = file, values, set[str]()

    def has(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._values

    def count(self, key: str, default: int = _ABSENT) -> int:
        """A whole number from 1."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
            raise self._wrong(key, f"is {_shown(value)}, no count")
        return value

    def id(self, key: str, below: int) -> int | None:
        """The number of a token; None where there is none by this key."""
        value = self._value(key, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
            raise self._wrong(key, f"is {_shown(value)}, no token of the {below}")
        return value

    def number(self, key: str, default: float = _ABSENT) -> float:
        """A number above 0: of a float32, the shortest that is the same, so that 1e-5 stays 1e-5."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self._wrong(key, f"is {_shown(value)}, no number above 0")
        return float(str(np.float32(value)))

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, f"is {_shown(value)}, neither true nor false")
        return value

    def text(self, key: str, default: str | None = _ABSENT) -> Any:
        """A text; or `default`."""
        value = self._value(key, default)
        if value is default:
            return default
        if not isinstance(value, bytes):
            raise self._wrong(key, f"is {_shown(value)}, no text")
        return self._decoded(key, value)

    def texts(self, key: str) -> list[str]:
        value = self._value(key)
        if not isinstance(value, list):
            raise self._wrong(key, f"is {_shown(value)}, no list of texts")
        return [self._decoded(f"{key}[{place}]", text) for place, text in enumerate(value)]

    def numbers(self, key: str, length: int) -> np.ndarray:
        value = self._value(key)
        if not isinstance(value, np.ndarray) or len(value) != length or not np.isfinite(value).all():
            raise self._wrong(key, f"is {_shown(value)}, no list of {length} numbers")
        return value

    def refuse_unasked(self, prefix: str) -> None:
        """Raises UserError where there is an entry below `prefix` that nobody asked for: what it changes is not known."""
        for key, value in self._values.items():
            if key.startswith(prefix) and key not in self._asked:
                raise self._wrong(key, f"is {_shown(value)}, and what that changes is not known", "use another model")

    def _value(self, key: str, default: Any = _ABSENT) -> Any:
        self._asked.add(key)
        value = self._values.get(key, default)
        if value is _ABSENT:
            raise self._wrong(key, "is missing")
        return value

    def _decoded(self, key: str, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise self._wrong(key, f"is no UTF-8: {content!r:.60}") from None

    def _wrong(self, key: str, what: str, advice: str = "convert the model again") -> UserError:
        return UserError(f"{self.file}: metadata {key!r:.80} {what}; {advice}")


def _shown(value: Any) -> str:
    if isinstance(value, list | np.ndarray):
        return f"a list of {len(value)}"
    return f"{value!r:.60}"
