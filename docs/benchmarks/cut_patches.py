"""Cut the patches of zip archives into smaller ones, so that a small model sees nuclei large.

Names like ``patch_001_448_x896_y0.png`` become ``patch_001_112_x1008_y0.png``: x and y are those of
the smaller one, where those of the patch count its own pixels.

python docs/benchmarks/cut_patches.py tiles cuts --side 112
"""

from __future__ import annotations

import argparse
import io
import re
import zipfile
from pathlib import Path

from PIL import Image


def main() -> None:
    """Write an archive of cuts for every archive of patches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--side", type=int, default=112, help="side of a cut in pixels")
    asked = parser.parse_args()
    asked.target.mkdir(parents=True, exist_ok=True)
    for path in sorted(asked.source.glob("*.zip")):
        with (
            zipfile.ZipFile(path) as patches,
            zipfile.ZipFile(asked.target / path.name, "w") as out,
        ):
            for name in patches.namelist():
                cut_one(patches.read(name), Path(name).stem, asked.side, out)


def cut_one(content: bytes, stem: str, side: int, out: zipfile.ZipFile) -> None:
    """Add the whole squares of a patch to an archive."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    for top in range(0, image.height - side + 1, side):
        for left in range(0, image.width - side + 1, side):
            stream = io.BytesIO()
            image.crop((left, top, left + side, top + side)).save(stream, format="PNG")
            out.writestr(f"{name_of_cut(stem, side, left, top)}.png", stream.getvalue())


def name_of_cut(stem: str, side: int, left: int, top: int) -> str:
    """The name of a patch with the size and place of a part of it."""
    stated = re.fullmatch(r"(.*)_\d+_x(\d+)_y(\d+)", stem)
    if stated is None:
        return f"{stem}_{side}_dx{left}_dy{top}"
    x, y = int(stated[2]) + left, int(stated[3]) + top
    return f"{stated[1]}_{side}_x{x}_y{y}"


if __name__ == "__main__":
    main()
