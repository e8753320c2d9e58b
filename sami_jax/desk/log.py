"""The desk's books: audit.jsonl in each folder that is decided about, a line a decision, under the name that was given."""

from pathlib import Path

from sami_jax.ground.lock import alone_in
from sami_jax.provenance.audit import AuditLog
from sami_jax.provenance.manifest import AUDIT


class Log:
    """The logs of several folders, open for adding. Other desks may add to them too."""

    def __init__(self) -> None:
        self._open: dict[Path, tuple[AuditLog, int]] = {}  # each with the size that its file had when we were done

    def add(self, folder: Path, event: str, name: str, **facts) -> None:
        """Adds a line, on disk before this returns.

        Args:
          name: that was given; nobody has made sure of it.
        Raises:
          UserError: the log was changed by another hand; names the line.
        """
        file = folder / AUDIT
        with alone_in(folder):
            log = self._known(file) or AuditLog(file)
            log.add(event, name=name, authenticated=False, **facts)
            self._open[file] = log, file.stat().st_size

    def check(self, folder: Path) -> None:
        """Before a decision: one that could not be noted is not made.

        Raises:
          UserError: the log was changed by another hand; names the line.
        """
        file = folder / AUDIT
        with alone_in(folder):
            if self._known(file) is None:
                log = AuditLog(file)
                self._open[file] = log, file.stat().st_size if file.exists() else 0

    def _known(self, file: Path) -> AuditLog | None:
        log, size = self._open.get(file, (None, -1))
        return log if (file.stat().st_size if file.exists() else 0) == size else None
