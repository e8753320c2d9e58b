"""The judges that a run may have, by the name that its config gives them. Training never sees one."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.errors import UserError
from sami_jax.evaluation.judge import Judge, Reply
from sami_jax.evaluation.well_formed import well_formed
from sami_jax.ground import hosts
from sami_jax.ground.paths import path_of
from sami_jax.ground.terminal import say
from sami_jax.miniature import judge as miniature_judge
from sami_jax.miniature import world
from sami_jax.principles import constitutions as composing
from sami_jax.principles.checks.reply import LONGEST
from sami_jax.principles.principle import Principle

CACHE = "verdicts.jsonl"  # of a run's folder: what a judge that is asked has replied


class MiniatureJudge:
    """Exact, for the miniature's world."""

    most = None

    @staticmethod
    def knows(id: str) -> bool:
        return id in miniature_judge.CHECKERS

    @staticmethod
    def followed(replies: Sequence[Reply]) -> list[dict[str, bool]]:
        return [
            miniature_judge.followed(reply.query, reply.response, composing.stated(reply.constitution))
            for reply in replies
        ]

    @staticmethod
    def well_formed(reply: Reply) -> bool:
        return world.well_formed(reply.query, reply.response)


class ChecksJudge:
    """Exact, for principles whose files say how a program can tell that they are followed; about responses of LONGEST characters at most."""

    most = None

    def __init__(self, principles: Sequence[Principle]):
        self._checks = {principle.id: principle.check for principle in principles if principle.check}

    def knows(self, id: str) -> bool:
        return id in self._checks

    def followed(self, replies: Sequence[Reply]) -> list[dict[str, bool]]:
        return [
            {
                s.id: self._checks[s.id].follows(reply.response, s.positive, reply.query)
                for s in reply.constitution
                if s.id in self._checks and len(reply.response) <= LONGEST
            }
            for reply in replies
        ]

    @staticmethod
    def well_formed(reply: Reply) -> bool:
        return well_formed(reply.query, reply.response, reply.ended, composing.text(reply.constitution))


def make_judge(config: ConfigDict, principles: Sequence[Principle], workdir: Path) -> Judge | None:
    """The judge of `config.evaluation.judge`; None where nobody judges.

    Args:
      workdir: where a judge that is asked keeps its replies.
    Raises:
      UserError: no such judge, or it cannot judge these principles.
    """
    e, ids = config.evaluation, [principle.id for principle in principles]
    if e.judge == "none":
        return None
    if e.judge == "miniature":
        if foreign := [id for id in ids if not MiniatureJudge.knows(id)]:
            raise UserError(
                f"config.evaluation.judge='miniature': cannot judge {', '.join(foreign)}; set it to 'none', or use principles that it knows"
            )
        return MiniatureJudge()
    if e.judge == "checks":
        judge = ChecksJudge(principles)
        without = [id for id in ids if not judge.knows(id)]
        if len(without) == len(ids):
            raise UserError(
                f"config.evaluation.judge='checks': no principle in {config.principles.path} has a check; add some (docs/principles.md), "
                "or take another judge"
            )
        if without:
            say(
                f"judge checks: {len(without)} of {len(ids)} principles have no check and are not judged: {', '.join(without)}"
            )
        return judge
    return _asked_judge(config, principles, workdir / CACHE)


def _asked_judge(config: ConfigDict, principles: Sequence[Principle], cache: Path) -> Judge:
    from sami_jax.evaluation.asked_judge import AskedJudge  # what follows takes a server's library, or a model

    e = config.evaluation
    if e.endpoint:
        from sami_jax.evaluation.asking import EndpointJudge
        from sami_jax.ground.endpoint import Endpoint

        endpoint = Endpoint(e.endpoint, e.judge, e.api, e.key_variable, e.timeout)
        asked = EndpointJudge(endpoint, e.concurrency, e.judge_tokens)
        return AskedJudge(asked, principles, e.judged, cache, by_first=True)
    from sami_jax.evaluation.local_judge import local_judge

    folder = path_of(e.judge)
    if not hosts.once(folder.is_dir):
        raise UserError(
            f"config.evaluation.judge={e.judge!r}: no folder of a model here; give one, or 'checks', 'miniature' or 'none', or set "
            "config.evaluation.endpoint to the server that has a model of this name"
        )
    asked = local_judge(folder, e.batch_size, config.train.compute_dtype, e.api == "chat")
    return AskedJudge(asked, principles, e.judged, cache, by_first=False)
