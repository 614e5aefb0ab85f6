"""The measurement of embedding as a table and in words."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from adios_tme.benchmark.embed.results import EmbedResult
from adios_tme.benchmark.speed_table import speed_table

WAYS = {
    "embed": "adios-tme embed",
    "timm_loop": "plain timm loop over a DataLoader",
    "model": "encoder alone, random images",
    "loader": "loader alone",
}


def embed_tables(results: EmbedResult) -> Iterator[Table]:
    """Speeds."""
    yield speed_table(results.images_per_second, WAYS, "Images", "embed", "Of embed")


def embed_summary(results: EmbedResult) -> str:
    """Ratios, what is the limit, and the machine."""
    ratios, machine = results.ratios, results.machine
    limit = (
        f"The encoder is the limit: the loader alone is {ratios.loader_over_model:.1f} times as "
        f"fast."
        if results.limit == "model"
        else f"The loader is the limit: the encoder alone is {1 / ratios.loader_over_model:.1f} "
        f"times as fast. Raise --num-workers where there are cores."
    )
    if ratios.embed_of_model_by_cpu is not None:
        limit += (
            f" Here both share the cores: embed is {ratios.embed_of_both_in_turn:.2f} times as "
            f"fast as one after the other, and {ratios.embed_of_model_by_cpu:.2f} times as fast as "
            f"the encoder alone by the CPU time of its process."
        )
    return "\n".join(
        [
            f"embed is {ratios.embed_over_timm_loop:.2f} times as fast as the plain timm loop, "
            f"{ratios.embed_of_model:.2f} times as fast as the encoder alone, and "
            f"{ratios.embed_of_loader:.2f} times as fast as the loader alone.",
            limit,
            f"Features differ from the plain loop's by {results.largest_difference:.2g} at most, "
            f"of values up to {results.largest_feature:.2g}.",
            f"{results.num_patches:,} patches a timing; on {machine['processor']}, "
            f"{machine['cores']} cores, {machine['device']}; timm {machine['timm']}, torch "
            f"{machine['torch']}.",
        ]
    )
