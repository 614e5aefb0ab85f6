"""What the loader's benchmark measures on."""

from __future__ import annotations

import zipfile
from pathlib import Path

from adios_tme.benchmark.loading_bench import Bench
from adios_tme.config.loading import LoadingConfig
from tests.factories import make_archive, png


def test_the_sample_is_every_patch_once_that_can_be_decoded(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "data" / "a.zip", num_patches=2)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("patch_002_448_x0_y448.png", png(32)[:200])
        archive.writestr("patch_003_448_x448_y448.png", png(32, seed=9))
    config = LoadingConfig(data_path=path.parent, num_samples=20)
    bench = Bench.build(config, tmp_path)
    assert bench.rows == [0, 1, 3]
    assert bench.contents == [png(32), png(32, seed=1), png(32, seed=9)]
