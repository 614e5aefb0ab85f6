"""The JSON of a measured loader, whose keys users parse."""

from __future__ import annotations

from adios_tme.benchmark.data.results import (
    ArchiveResult,
    DecoderResult,
    IndexingResult,
    LoaderRatios,
    LoaderResult,
    Measurement,
    OrderResult,
    Patches,
)


def test_keys_are_those_that_users_know() -> None:
    written = Measurement(
        machine={"torch": "2"},
        settings={"img_size": 224},
        patches=Patches(12, 3, 1000, (448, 448), ".png"),
        loader=LoaderResult(
            {"decode": 2.0}, {"read": 1.0}, {"read": None}, LoaderRatios(0.9, None, 0.8, 4.0, 2.0)
        ),
        archives=(ArchiveResult(100, 2.0, 8.0, 4.0, None, None),),
        decoders=(DecoderResult("PNG", 6.0, 2.0, 3.0),),
        indexing=IndexingResult(100, 5.0, None, 2.5, 2.0),
        order=OrderResult(10**9, 0.1),
    ).as_json()
    keys = {
        name: list(part[0] if isinstance(part, tuple) else part) for name, part in written.items()
    }
    assert list(keys.items()) == [
        ("machine", ["torch"]),
        ("settings", ["img_size"]),
        ("patches", ["count", "archives", "mean_bytes", "first_size", "suffix"]),
        ("images_per_second", ["decode"]),
        ("split_ms", ["read"]),
        ("split_cpu_ms", ["read"]),
        (
            "ratios",
            [
                "one_worker_of_decode_ceiling",
                "one_worker_of_decode_ceiling_by_cpu",
                "one_worker_resizing_of_decode_ceiling",
                "one_worker_over_pillow_way",
                "all_workers_over_one",
            ],
        ),
        (
            "archives",
            [
                "members",
                "loader_ms",
                "open_per_patch_ms",
                "loader_over_open_per_patch",
                "loader_over_open_per_patch_by_cpu",
                "loader_over_smallest_archive",
            ],
        ),
        ("decoders", ["format", "pillow_ms", "here_ms", "here_over_pillow"]),
        (
            "indexing",
            [
                "members",
                "members_per_second",
                "members_per_second_by_cpu",
                "zipfile_members_per_second",
                "over_zipfile",
            ],
        ),
        ("order", ["patches", "microseconds_per_position"]),
    ]
    assert written["archives"][0]["members"] == 100
    assert written["order"]["microseconds_per_position"] == 0.1
