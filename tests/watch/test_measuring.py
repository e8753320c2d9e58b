"""What is measured of an answer, and what a judge is asked."""

import pytest

from sami_jax.errors import UserError
from sami_jax.evaluation.judges import ChecksJudge
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.principle import Principle
from sami_jax.watch.alarm import Examples
from sami_jax.watch.lines import Answer
from sami_jax.watch.measuring import Measuring
from sami_jax.watch.tally import PRINCIPLE

SIDES = {"principle": {"sentences": {"at_most": 1}}, "antithesis": {"sentences": {"at_least": 2}}}
BRIEF = Principle(
    "brief", (("Be brief, in one sentence.", "Be long, in many sentences."),), check=Checks.parse(SIDES, "x")
)
KIND = Principle("kind", (("Be kind.", "Be unkind."),))


def answer(response: str, constitution: str = "", query: str = "How do I clean the bike?") -> Answer:
    return Answer(None, query, response, constitution, (), True)


class Asked:
    """A judge that has to be asked, and says that all is followed."""

    def __init__(self, fails: bool = False):
        self.most, self.seen, self._fails = 3, [], fails

    def knows(self, id):
        return True

    def followed(self, replies):
        if self._fails:
            raise UserError("the server is away")
        self.seen += replies
        return [{statement.id: True for statement in reply.constitution} for reply in replies]

    def well_formed(self, reply):
        return True


def measuring(judge, tmp_path, judged=2, patterns=()):
    return Measuring((BRIEF, KIND), judge, judged, Examples(patterns, False).masked, tmp_path / "cache")


@pytest.mark.parametrize(
    ("constitution", "stated"),
    [
        ("1. Be unkind.\n2. Be brief, in one sentence.", {"kind": False, "brief": True}),
        ("Be kind.", {"kind": True}),
        ("You are an assistant.\n\nRules:\n- Be kind.\n\nAnswer now.", {"kind": True}),
        ("You are an assistant.", {"brief": True, "kind": True}),
        ("", {"brief": True, "kind": True}),
    ],
)
def test_what_an_answer_is_held_to(tmp_path, constitution, stated):
    found = measuring(None, tmp_path).stated(constitution)
    assert {statement.id: statement.positive for statement in found} == stated


def test_checks_decide_on_all_answers(tmp_path):
    answers = [answer("With soap."), answer("With soap. Then dry it."), answer("x. " * 30_000)]
    one, two, long = measuring(ChecksJudge((BRIEF, KIND)), tmp_path, judged=1).values(answers)
    assert (one["following"], two["following"]) == (1.0, 0.0) and one[PRINCIPLE + "brief"] == 1.0
    assert PRINCIPLE + "kind" not in one and "following" not in long and long["well_formed"] == 0.0
    assert one["language"] == 1.0 and "echo" not in one


def test_a_judge_that_is_asked_sees_few_answers_and_nothing_private(tmp_path):
    judge = Asked()
    answers = [
        answer("Write to ada@example.com."),
        answer("1. Be brief, in one sentence.", "1. Be brief, in one sentence."),
        answer("No."),
    ]
    (tmp_path / "cache").write_text("what a judge said", encoding="utf-8")
    values = measuring(judge, tmp_path, patterns=[r"\w+@[\w.]+"]).values(answers)
    assert [reply.response for reply in judge.seen] == ["Write to ***"] and not (tmp_path / "cache").exists()
    assert [one.get("following") for one in values] == [1.0, 0.0, None]  # an echo follows nothing, and nobody is asked
    assert values[1]["echo"] == 1.0 and values[1]["well_formed"] == 0.0


def test_a_judge_that_fails_leaves_the_rest(tmp_path, capsys):
    [values] = measuring(Asked(fails=True), tmp_path).values([answer("With soap.")])
    assert "following" not in values and values["well_formed"] == 1.0
    assert "the server is away" in capsys.readouterr().err
