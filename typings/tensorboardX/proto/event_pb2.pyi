"""Made by protobuf when it is imported, where no type checker sees it."""

from typing import Any

class Event:
    def __init__(self, **fields: Any) -> None: ...
    def SerializeToString(self) -> bytes: ...

class SessionLog:
    START: int
    def __init__(self, **fields: Any) -> None: ...
