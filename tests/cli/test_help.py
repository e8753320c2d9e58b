"""Help that groups verbs, words that are nearly right, completion in a shell."""

import shutil
import subprocess

import pytest

from sami_jax.cli import completion, main
from sami_jax.cli.parser import GROUPS, new_parser


def test_every_verb_is_in_one_group():
    [verbs] = [action.choices for action in new_parser()._actions if action.dest == "verb"]
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(verbs)


def test_help_shows_groups(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert (
        exit.value.code == 0
        and "prove:" in lines
        and "  verify      is all that a run left as it was recorded?" in lines
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["runn"], "'runn' is not known; did you mean run?; see `sami --help`"),
        (["xyzzy"], "'xyzzy' is not known; choose from run, "),
        (["principles", "aprove", "x"], "did you mean approve?; see `sami principles --help`"),
        (["run", "--worksir=x"], "--worksir=x: not an option of `sami run`; did you mean --workdir?; see `sami run --help`"),
        (["winrate", "--input", "x", "--ties", "stric"], "did you mean strict?; see `sami winrate --help`"),
        (["principles", "list", "--jsn"], "did you mean --json?"),
        ([], "are required: VERB; see `sami --help`"),
    ],
)  # fmt: skip
def test_a_word_that_is_nearly_right(capsys, argv, words):
    try:
        status = main(argv)
    except SystemExit as exit:
        status = exit.code
    err = capsys.readouterr().err
    assert status == 2 and words in err and err.count("\n") == 1


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_verbs_and_options(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("winrate", "approve", "workdir", "force_resume", "strict"):
        assert word in script, word


def completed(script: str, line: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
    code += "$(complete -p sami | sed 's/.*-F \\([^ ]*\\).*/\\1/')\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    assert completed(script, "sami veri") == ["verify"]
    assert completed(script, "sami run --force") == ["--force_resume"]
    assert completed(script, "sami principles appr") == ["approve"]
    assert completed(script, "sami winrate --ties str") == ["strict"]
