"""What a command that is refused says."""

from sami_jax.cli import main


def complaint(capsys, *argv: str) -> str:
    """Runs `sami ARGV`, which must fail as users are promised, and returns its one line."""
    try:
        status = main(list(argv))
    except SystemExit as exit:  # argparse's own errors
        status = exit.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith("sami: "), lines
    return lines[0]
