"""Drafting: what counts as a principle in a reply, and when asking ends."""

from sami_jax.principles.principle import Principle, content_hash, own_status
from sami_jax.principles.writer import draft, prompt_hash, prompt_text, read_reply

KIND = Principle("kind", (("Be kind to the person.", "Be cruel to the person."),))
GOOD = "id: brief\nprinciple: Say it in one sentence.\nantithesis: Say it in many sentences."
OTHER = "id: warm\nprinciple: Sound like a friend.\nantithesis: Sound like a machine."


def test_reads_blocks_and_says_why_others_are_refused():
    reply = "\n\n".join(
        [
            "Here are some principles:",
            GOOD,
            GOOD.replace("brief", "terse"),
            "id: b c\nprinciple: A one.\nantithesis: B two.",
            "id: same\nprinciple: Sing it.\nantithesis: sing it!",
            "id: half\nprinciple: Only this.",
            "id: kind\nprinciple: Use numbers.\nantithesis: Use words.",
            "id: void\nprinciple:\nantithesis: Nothing.",
            OTHER,
            "id: more\nprinciple: Ask something back.\nantithesis: Never ask anything.",
        ]
    )
    read = read_reply("prompt", reply, "model", [KIND], wanted=2)
    assert [p.id for p in read.principles] == ["brief", "warm"]
    assert [reason for _, reason in read.refused] == [
        "not the three lines id, principle, antithesis",
        "says nearly what brief says",
        "its id is not a word",
        "its antithesis says the same",
        "not the three lines id, principle, antithesis",
        "the id kind is taken",
        "an empty text",
        "more than the 2 asked for",
    ]
    principle = read.principles[0]
    assert own_status(principle) == "draft" and principle.source.draft == content_hash(principle)
    assert (principle.source.kind, principle.source.name) == ("writer", "model")
    assert principle.source.prompt == prompt_hash("prompt")


def test_asks_for_the_rest_until_there_are_enough():
    asked = []

    def ask(prompt: str, attempt: int) -> str:
        asked.append(prompt)
        return ["nonsense", GOOD, OTHER][attempt]

    replies = list(draft(ask, "m", "Answers", 2, [KIND], [KIND], attempts=5))
    assert [len(reply.principles) for reply in replies] == [0, 1, 1]
    assert "Write 2 new principles. There are already: kind." in asked[1]
    assert "Write 1 new principles. There are already: kind, brief." in asked[2]
    assert len(list(draft(lambda *_: "nonsense", "m", "Answers", 2, [], [], attempts=3))) == 3


def test_prompt_shows_task_and_examples_as_they_should_be_written():
    prompt = prompt_text("Summaries\nof posts", 3, [KIND], [])
    assert "Task: Summaries of posts\n" in prompt and "Write 3 new principles.\n" in prompt
    assert "id: kind\nprinciple: Be kind to the person.\nantithesis: Be cruel to the person.\n\n" in prompt
    assert "Examples" not in prompt_text("t", 3, [], [])
