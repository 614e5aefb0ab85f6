"""The objective that the settings name."""

from __future__ import annotations

import importlib

from adios_tme.config.objective import LossConfig
from adios_tme.models.student import Student
from adios_tme.objectives.base import Objective


def build_objective(loss: LossConfig, student: Student) -> Objective:
    """Build an objective: the module of this room with its name says how.

    Args:
        loss: Settings; the module that they name has a function ``build``.
        student: Whose embeddings are compared; a teacher begins as its copy.
    """
    module = importlib.import_module(f"adios_tme.objectives.{loss.objective}")
    objective: Objective = module.build(student, loss)
    return objective
