"""`sami doctor`: its options, and what it prints."""

import argparse

from sami_jax.cli.options import add_verb, tell_programs, with_results


def add_verbs(verbs) -> None:
    doctor = add_verb(
        verbs, "doctor", _doctor, "is this machine ready? versions, devices, memory, what is missing", "sami doctor"
    )
    with_results(doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    """Exit status 0 if the machine is ready, 1 if something needed is missing."""
    import dataclasses

    from rich import box
    from rich.table import Table

    from sami_jax.doctor.finding import MISSING, NOTE, OK, Finding
    from sami_jax.doctor.machine import devices, driver, host
    from sami_jax.doctor.packages import installed
    from sami_jax.ground.terminal import cell, show, show_table

    findings = [*installed(), *host(), *driver(), *devices()]
    if arguments.not_kept:
        found, _, advice = arguments.not_kept.partition("; ")
        findings.append(Finding("compiled programs", found, NOTE, advice))
    missing = [finding for finding in findings if finding.state == MISSING]
    rows = [dataclasses.asdict(finding) for finding in findings]
    tell_programs(arguments, {"ready": not missing, "findings": rows})
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("what", "found", "to do"):
        table.add_column(column, overflow="fold")
    styles = {OK: "", NOTE: "yellow", MISSING: "bold red"}
    for finding in findings:
        style = styles[finding.state]
        table.add_row(finding.about, cell(finding.found, style), cell(finding.advice, style))
    show_table(table)
    if missing:
        show(f"Not ready: {', '.join(finding.about for finding in missing)}; see above what to do", style="bold red")
        return 1
    show("Ready.", style="bold green")
    return 0
