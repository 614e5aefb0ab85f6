"""``adios-tme doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.commands.doctor import DoctorConfig
from adios_tme.terminal import print_json, progress_bar, terminal

doctor_app = typer.Typer()

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@settings_command(doctor_app, "doctor", DoctorConfig)
def doctor(config: DoctorConfig) -> None:
    """Make every check, print a line for each, and leave with 1 if one failed."""
    from adios_tme.doctor import CHECKS, examine

    console, findings = terminal(), []
    with progress_bar("Checking") as on_progress:
        for finding in examine(config):
            findings.append(finding)
            on_progress(len(findings), len(CHECKS))
            if config.json_output:
                continue
            console.print(f"{finding.status:>5}", style=STYLES[finding.status], end="  ")
            console.print(f"{finding.name + ':':<15}{finding.found}")
            if finding.advice:
                console.print(f"{'':22}{finding.advice}")
    if config.json_output:
        print_json([asdict(finding) for finding in findings])
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)
