"""What a run looks at on its way."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from adios_tme.config.base import Config


class EvaluationConfig(Config):
    """Scores against labels while training."""

    eval_labels: Path | None = None
    """Folder with images/ and labels/ on which the masks are scored now and then; absent: none."""

    eval_freq: int = Field(default=500, ge=1)
    """Iterations between scores."""

    eval_images: int = Field(default=32, ge=2)
    """How many of the labelled images are scored, always the same ones."""
