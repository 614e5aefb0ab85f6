"""``adios-tme export``."""

from __future__ import annotations

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.export import ExportConfig
from adios_tme.errors import ConfigError
from adios_tme.files import check_output, writing
from adios_tme.terminal import progress_bar, terminal

export_app = typer.Typer()


@settings_command(export_app, "export", ExportConfig)
def export(config: ExportConfig) -> None:
    """Write what is asked for, and say how it is loaded."""
    from adios_tme.export.dinov2 import write_dinov2
    from adios_tme.export.folder import write_encoder_folder
    from adios_tme.pretrained import load_for_export

    if config.out.exists() and not config.overwrite:
        raise ConfigError(
            f"{config.out}: exists already. Give another OUT, or --overwrite to write over it."
        )
    is_file = config.format in ("dinov2", "onnx")
    if config.out.exists() and config.out.is_dir() is is_file:
        there, written = ("folder", "file") if is_file else ("file", "folder")
        raise ConfigError(
            f"{config.out}: is a {there}; --format {config.format} writes a {written}. "
            f"Give another OUT."
        )
    if config.format == "onnx":
        _export_onnx(config)
        return
    exported, facts = load_for_export(config.run, config.licence)
    console = terminal()
    with writing(config.out):
        if config.format == "dinov2":
            write_dinov2(exported.encoder, config.out)
            console.print(f"Wrote {config.out}: teacher weights under DINOv2's names.")
            return
        write_encoder_folder(exported, facts, config.out)
    console.print(f"Wrote {config.out}: config.json, model.safetensors and README.md.")
    console.print(
        f'Load it: timm.create_model("local-dir:{config.out}", pretrained=True, num_classes=0)'
    )


def _export_onnx(config: ExportConfig) -> None:
    from adios_tme.export import onnx
    from adios_tme.pretrained import load_for_export, load_for_scoring

    onnx.check_packages()
    check_output(config.out, (".onnx",))
    if config.what == "mask":
        trained = load_for_scoring(config.run)
        exported = onnx.mask_export(trained.generator, trained.iteration)
    else:
        encoder, facts = load_for_export(config.run)
        exported = onnx.encoder_export(encoder, facts.iteration)
    with writing(config.out), progress_bar("Exporting") as on_progress:
        onnx.write_onnx(exported, config.out, on_progress)
    outputs = ", ".join(exported.outputs)
    terminal().print(
        f"Wrote {config.out}: uint8 images (batch, 3, height, width) in, {outputs} out; "
        f"checked against torch."
    )
