"""What is checked, each in an environment of its own: ``nox -s tests``, ``nox -l`` for the list."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["tests", "lint", "types", "docs", "build"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")


def install(
    session: nox.Session, *groups: str, package: bool = True, compiled: bool = False
) -> None:
    """Install development groups, and the package as users get it."""
    needed = nox.project.dependency_groups(PROJECT, *groups)
    # Compiling torch takes half a minute, which only sessions with many processes win back.
    how = [] if compiled else ["--no-compile"]
    session.install(*how, *needed, *(["."] if package else []))


@nox.session
def tests(session: nox.Session) -> None:
    """Unit, reference, end-to-end and fault tests; arguments after -- go to pytest."""
    install(session, "test", compiled=True)
    run_by_file(session)


@nox.session
def slow(session: nox.Session) -> None:
    """Compiled kernels; golden runs and ONNX files of the larger mask model."""
    install(session, "test", compiled=True)
    run_by_file(session, "-m", "slow")


@nox.session
def pages(session: nox.Session) -> None:
    """All commands and code of the documentation, run as they stand there."""
    install(session, "test", compiled=True)
    run_by_file(session, "-m", "pages")


@nox.session
def elastic(session: nox.Session) -> None:
    """Processes and machines of one run that are started together, killed, stopped and replaced."""
    install(session, "test", compiled=True)
    run_elastic(session)


def run_elastic(session: nox.Session) -> None:
    """Without installing, as those of the same kind below."""
    run_pytest(session, "-m", "elastic and not thorough")


def run_by_file(session: nox.Session, *arguments: str) -> None:
    """Run tests on all cores; those of a file share what is slow to make, so one worker takes them.

    By their names the slowest files come first. (Groups of tests are lost with pytest 9.2:
    pytest-xdist 1386.)
    """
    by_file = ("--numprocesses", "auto", "--dist", "loadfile", "--no-loadscope-reorder")
    run_pytest(session, *by_file, *arguments)


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run tests, which may keep what Python makes of them for the next run and for each other."""
    session.run("pytest", *arguments, *session.posargs, env={"PYTHONDONTWRITEBYTECODE": ""})


@nox.session
def faults(session: nox.Session) -> None:
    """Fault tests with their full counts, and every case of the gradients; takes ten minutes."""
    install(session, "test", compiled=True)
    run_pytest(session, "-m", "thorough")


@nox.session
def slurm(session: nox.Session) -> None:
    """Jobs on a real SLURM of two nodes on this machine; needs root on Debian or Ubuntu."""
    if os.geteuid() == 0 and shutil.which("apt-get") and not shutil.which("slurmctld"):
        options = ("-o", "DPkg::Lock::Timeout=300", "-qq")
        session.run("apt-get", *options, "update", external=True, success_codes=range(256))
        session.run(
            *("apt-get", *options, "install", "-y", "--no-install-recommends"),
            *("munge", "slurmctld", "slurmd", "slurm-client"),
            external=True,
            env={"DEBIAN_FRONTEND": "noninteractive"},
            success_codes=range(256),
        )
    install(session, "test", package=False, compiled=True)
    session.install(".[slurm]")
    run_pytest(session, "-m", "slurm", "tests/slurm")


@nox.session
def gpu(session: nox.Session) -> None:
    """Tests that need CUDA."""
    install(session, "test")
    run_pytest(session, "-m", "gpu or multi_gpu")


@nox.session
def scale(session: nox.Session) -> None:
    """An index of 10^8 patches: opening, memory of workers, first batch (six gigabytes of disk)."""
    install(session, "test", compiled=True)
    run_pytest(session, "-s", "-m", "scale", "tests/scale")


@nox.session
def downstream(session: nox.Session) -> None:
    """Exports and masked views inside the tools that take them, at their newest versions."""
    install(session, "test", "downstream")
    where = ("tests/reference/test_against_downstream_tools.py", "tests/unit/masking")
    session.run("pytest", *(session.posargs or where))


@nox.session
def extras(session: nox.Session) -> None:
    """What needs extras that are too heavy for every run of the tests."""
    install(session, "test", "heavy")
    where = ("trackers/test_mlflow.py", "trackers/test_trackio.py", "viz/test_features.py")
    session.run("pytest", *(session.posargs or (f"tests/unit/{place}" for place in where)))


@nox.session
def fuzz(session: nox.Session) -> None:
    """All that reads files under atheris; arguments after -- go to libFuzzer."""
    install(session, "test", "fuzz")
    arguments = session.posargs or ["-max_total_time=60", "-rss_limit_mb=4096"]
    for target in ("image", "label", "outlines", "zip", "tar", "index", "listing"):
        session.run("python", "-m", "tests.run_fuzzer", target, *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, style, and which room may import which."""
    install(session, "lint", package=False)
    run_lint(session)


def run_lint(session: nox.Session) -> None:
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict."""
    install(session, "types")
    run_types(session)


def run_types(session: nox.Session) -> None:
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors, in docs/_build/html."""
    install(session, "docs")
    run_docs(session)


def run_docs(session: nox.Session) -> None:
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(default=False)
def checks(session: nox.Session) -> None:
    """Lint, types, docs and the tests that are left, in one environment: with torch, a minute."""
    install(session, "lint", "types", "docs", compiled=True)
    for run in (run_lint, run_types, run_docs, run_elastic):
        run(session)
    run_by_file(session, "-m", "pages or slow")


@nox.session
def build(session: nox.Session) -> None:
    """A wheel in an environment of its own, and the command that it brings."""
    folder = Path(session.create_tmp())
    for old in folder.glob("*.whl"):
        old.unlink()
    session.run("pip", "wheel", "--no-deps", "--wheel-dir", str(folder), ".")
    (wheel,) = folder.glob("*.whl")
    session.install("--no-compile", str(wheel))
    with session.chdir(folder):  # away from the source tree
        session.run("adios-tme", "--help")
