"""Every exception the package raises on purpose, and the exit code that goes with it.

A message has three parts, one sentence each: what is wrong (with the value), where, what to do.

Example:
    >>> from adios_tme import load_encoder
    >>> from adios_tme.errors import AdiosError
    >>> try:
    ...     load_encoder("no_such_run")
    ... except AdiosError as error:
    ...     print(type(error).__name__, error.exit_code)
    CheckpointError 1
"""

from __future__ import annotations


class AdiosError(Exception):
    """Base of all known errors; the command line prints its message and no traceback."""

    exit_code = 1


class ConfigError(AdiosError):
    """Settings that are unknown, out of range or contradict each other."""

    exit_code = 2


class DataError(AdiosError):
    """Archives, indexes, images or labels that cannot be used."""


class CheckpointError(AdiosError):
    """A checkpoint or run folder that is missing, damaged or made by other settings."""


class TrainingDivergedError(AdiosError):
    """Losses or gradients that stayed non-finite."""


class HubError(AdiosError):
    """A hub of models that cannot be reached, or that refuses."""


class LaunchError(AdiosError):
    """Worker processes that could not be started, or that failed."""


class TrainingStoppedError(AdiosError):
    """A signal ended the run early, after its checkpoint was saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[type[TrainingStoppedError], tuple[str, int]]:
        return type(self), (str(self), self.signal_number)


class MembershipChangedError(AdiosError):
    """The membership changes: the state is saved, and processes begin again among more."""
