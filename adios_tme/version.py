"""The version alone, so that nothing heavier has to be imported for it."""

from __future__ import annotations

__version__ = "0.1.0"
