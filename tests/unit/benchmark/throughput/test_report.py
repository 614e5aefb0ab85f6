"""The measured training step as tables."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from adios_tme.benchmark.throughput.report import throughput_tables
from adios_tme.benchmark.throughput.results import Measurement, VariantResult
from tests.factories import measured_case


def test_every_number_fits_a_terminal_of_eighty_columns() -> None:
    plain = VariantResult(123.45, 0.987, (0.9, 1.0), {"rest": 0.987}, 189.3, 177.5, 12.34)
    case = measured_case(
        images_per_second=567.89, largest_batch=1024, baselines={"naive_checkpointing": plain}
    )
    with StringIO() as stream:
        Console(file=stream, width=80).print(*throughput_tables(Measurement({}, (case,))))
        lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = (line.split() for line in lines if line.startswith("1 naive"))
    assert row == [
        "1",
        "naive_checkpointing",
        "123.45",
        "0.987",
        "189.3",
        "12.34",
        "4.60x",
        "0.08x",
    ]
    (row,) = (line.split() for line in lines if "567.89" in line)
    assert row == ["1", "567.89", "0.400", "2.0", "0.50", "1.00", "0.75", "1024"]
