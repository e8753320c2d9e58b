"""Win rates for people."""

TIES = {"half": "ties as half", "strict": "ties as losses", "drop": "without ties"}


def print_rates(found: dict, slices: dict[str, dict], ties: str) -> None:
    """A summary by `verdicts.summarize`, and those of its slices, for people."""
    from sami_jax.ground.terminal import show

    show(
        f"{found['n']} verdicts: {found['wins']} wins, {found['ties']} ties, {found['losses']} losses, {found['invalid']} invalid"
    )
    for reason, count in found["invalid_replies"].items():
        show(f"  no verdict in {count} {'reply' if count == 1 else 'replies'}: {reason}")
    show(f"win rate, {TIES[ties]}: {_rate(found)}")
    for name, label in (
        ("length_balanced", "balanced by length"),
        ("length_controlled", "at equal length, logistic"),
        ("flip_rate", "flipped with the order"),
    ):
        if found[name] is not None:
            show(f"{label}: {100 * found[name]:.1f} %")
    if found["mean_test_tokens"] is not None:
        show(f"mean lengths: baseline {found['mean_baseline_tokens']:.1f}, tested {found['mean_test_tokens']:.1f}")
        if found["length_controlled"] is None:
            show("at equal length: cannot be told, lengths separate wins from losses or do not differ")
    for tag, part in slices.items():
        show(f"  {tag}: {_rate(part)}")


def _rate(found: dict) -> str:
    if found["win_rate"] is None:
        return "no valid verdict"
    return (
        f"{100 * found['win_rate']:.1f} % (95 %: {100 * found['ci_low']:.1f} to {100 * found['ci_high']:.1f}; "
        f"sign test p = {found['sign_test_p']:.2g}; n = {found['n'] - found['invalid']})"
    )
