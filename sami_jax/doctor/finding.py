"""What an examination finds."""

import dataclasses

OK, NOTE, MISSING = "ok", "note", "missing"


@dataclasses.dataclass(frozen=True)
class Finding:
    about: str  # "jax"
    found: str  # "0.10.2", "not installed"
    state: str = OK  # NOTE: something could be had or is odd; MISSING: nothing will run without it
    advice: str = ""  # what to do, where the state is not OK
