"""The objective that a name stands for."""

from __future__ import annotations

import importlib

from adios_tme.config.objective import ObjectiveName
from adios_tme.models.student import Student
from adios_tme.objectives.base import Objective


def build_objective(name: ObjectiveName, student: Student) -> Objective:
    """Build an objective: the module of this room with that name says how.

    Args:
        name: Of the module, which has a function ``build``.
        student: Whose embeddings are compared; a teacher begins as its copy.
    """
    objective: Objective = importlib.import_module(f"adios_tme.objectives.{name}").build(student)
    return objective
