"""Every format by Pillow and by the decoder that it has here."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from adios_tme.benchmark.data.bench import Bench, pillow_decode
from adios_tme.benchmark.interleave import Timed, each, interleave, milliseconds, speed_ratio
from adios_tme.data.decode import decode_image

#: Patches that are encoded anew in every format.
NUM_ENCODED = 12


def measure_decoders(bench: Bench) -> dict[str, Any]:
    """Every format by Pillow and by the decoder that it has here."""
    images = [Image.fromarray(decode_image(content)) for content in bench.contents[:NUM_ENCODED]]
    side = bench.config.img_size
    large = [image.resize((8 * side, 8 * side)) for image in images[:2]]
    variants: dict[str, Timed] = {}
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        encoded = [_encoded(image, kind) for image in images]
        variants[f"{kind} pillow"] = each(pillow_decode, encoded)
        variants[f"{kind} here"] = each(decode_image, encoded)
    files = [_encoded(image, "JPEG") for image in large]
    variants["large pillow"] = each(pillow_decode, files)
    variants["large here"] = each(decode_image, files)
    variants["large scaled"] = each(lambda content: decode_image(content, side), files)
    costs = interleave(bench.config.num_rounds, variants)
    table = [
        {
            "format": kind,
            "pillow_ms": milliseconds(costs[f"{kind} pillow"]),
            "here_ms": milliseconds(costs[f"{kind} here"]),
            "here_over_pillow": speed_ratio(costs, f"{kind} here", f"{kind} pillow"),
        }
        for kind in ("PNG", "JPEG", "WEBP", "TIFF")
    ]
    for name in ("here", "scaled"):
        table.append(
            {
                "format": f"JPEG of {8 * side} px" + (", scaled" if name == "scaled" else ""),
                "pillow_ms": milliseconds(costs["large pillow"]),
                "here_ms": milliseconds(costs[f"large {name}"]),
                "here_over_pillow": speed_ratio(costs, f"large {name}", "large pillow"),
            }
        )
    return {"decoders": table}


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **({"quality": 90} if kind in ("JPEG", "WEBP") else {}))
    return stream.getvalue()
