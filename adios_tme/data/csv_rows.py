"""Tables as spreadsheets and scripts save them."""

from __future__ import annotations

import csv
import io
from pathlib import Path


def csv_rows(path: Path) -> csv.DictReader[str]:
    """Rows by their columns, with commas, semicolons or tabs between them, whichever it has most.

    Raises:
        OSError: If the file cannot be read.
        UnicodeDecodeError: If it is not UTF-8, with or without a byte-order mark.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        text = file.read()
    first_line = text.partition("\n")[0]
    separator = max(",;\t", key=first_line.count)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
