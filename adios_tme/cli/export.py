"""``adios-tme export``."""

from __future__ import annotations

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.commands.export import FOLDERS, ExportConfig
from adios_tme.errors import ConfigError
from adios_tme.files import check_output, writing
from adios_tme.terminal import progress_bar, tell_left_out, terminal

export_app = typer.Typer()


@settings_command(export_app, "export", ExportConfig)
def export(config: ExportConfig) -> None:
    """Write what is asked for, say how it is loaded, and push it."""
    _check_place(config)
    if config.push is not None:
        from adios_tme.export.push import check_token

        check_token(config.push)
    if config.format == "onnx":
        _export_onnx(config)
    elif config.what == "mask":
        _export_mask_model(config)
    else:
        _export_encoder(config)
    if config.push is not None:
        _push(config, config.push)


def _check_place(config: ExportConfig) -> None:
    """Raise ConfigError unless the place is free, or may be written over."""
    if config.out.exists() and not config.overwrite:
        raise ConfigError(
            f"{config.out}: exists already. Give another OUT, or --overwrite to write over it."
        )
    is_file = config.format not in FOLDERS
    if config.out.exists() and config.out.is_dir() is is_file:
        there, written = ("folder", "file") if is_file else ("file", "folder")
        raise ConfigError(
            f"{config.out}: is a {there}; --format {config.format} writes a {written}. "
            f"Give another OUT."
        )


def _export_encoder(config: ExportConfig) -> None:
    from adios_tme.export.dinov2 import write_dinov2
    from adios_tme.export.folder import write_encoder_folder
    from adios_tme.models.student import as_vit
    from adios_tme.pretrained import load_for_export

    exported, facts = load_for_export(config.run, config.licence)
    console = terminal()
    with writing(config.out):
        if config.format == "dinov2":
            write_dinov2(as_vit(exported.encoder, "format=dinov2"), config.out)
            console.print(f"Wrote {config.out}: teacher weights under DINOv2's names.")
            return
        write_encoder_folder(exported, facts, config.out)
    tell_left_out(f"Left out: {what}" for what in facts.left_out)
    console.print(f"Wrote {config.out}: config.json, model.safetensors and README.md.")
    console.print(
        f'Load it: timm.create_model("local-dir:{config.out}", pretrained=True, num_classes=0)'
    )


def _export_mask_model(config: ExportConfig) -> None:
    from adios_tme.export.folder import write_mask_folder
    from adios_tme.pretrained import load_mask_model_for_export

    generator, facts = load_mask_model_for_export(config.run, config.licence)
    with writing(config.out):
        write_mask_folder(generator, facts, config.out)
    tell_left_out(f"Left out: {what}" for what in facts.left_out)
    console = terminal()
    console.print(f"Wrote {config.out}: config.json, model.safetensors and README.md.")
    console.print(f'Load it: adios_tme.MaskGenerator.from_pretrained("{config.out}")')


def _push(config: ExportConfig, repo: str) -> None:
    from adios_tme.export.folder import FILES
    from adios_tme.export.push import push_folder

    address = push_folder(config.out, FILES, repo, private=config.private)
    terminal().print(f"Pushed it: {address}")


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
