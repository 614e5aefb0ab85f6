"""Every format by Pillow and by the decoder that it has here."""

from __future__ import annotations

import io

from PIL import Image

from adios_tme.benchmark.data.bench import Bench, pillow_decode
from adios_tme.benchmark.data.results import DecoderResult
from adios_tme.benchmark.interleave import Cost, Timed, each, interleave, milliseconds, speed_ratio
from adios_tme.data.decode import decode_image

#: Patches that are encoded anew in every format.
NUM_ENCODED = 12
KINDS = ("PNG", "JPEG", "WEBP", "TIFF")


def measure_decoders(bench: Bench) -> tuple[DecoderResult, ...]:
    """Every format by Pillow and by the decoder that it has here."""
    images = [Image.fromarray(decode_image(content)) for content in bench.contents[:NUM_ENCODED]]
    side = bench.config.img_size
    large = [image.resize((8 * side, 8 * side)) for image in images[:2]]
    variants: dict[str, Timed] = {}
    for kind in KINDS:
        encoded = [_encoded(image, kind) for image in images]
        variants[f"{kind} pillow"] = each(pillow_decode, encoded)
        variants[f"{kind} here"] = each(decode_image, encoded)
    files = [_encoded(image, "JPEG") for image in large]
    variants["large pillow"] = each(pillow_decode, files)
    variants["large here"] = each(decode_image, files)
    variants["large scaled"] = each(lambda content: decode_image(content, side), files)
    costs = interleave(bench.config.num_rounds, variants)
    name = f"JPEG of {8 * side} px"
    return (
        *(_result(costs, kind, f"{kind} here", f"{kind} pillow") for kind in KINDS),
        _result(costs, name, "large here", "large pillow"),
        _result(costs, f"{name}, scaled", "large scaled", "large pillow"),
    )


def _result(costs: dict[str, list[Cost]], name: str, here: str, pillow: str) -> DecoderResult:
    return DecoderResult(
        format=name,
        pillow_ms=milliseconds(costs[pillow]),
        here_ms=milliseconds(costs[here]),
        here_over_pillow=speed_ratio(costs, here, pillow),
    )


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **({"quality": 90} if kind in ("JPEG", "WEBP") else {}))
    return stream.getvalue()
