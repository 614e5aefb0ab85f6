"""The whole tree of a training run, and the rules between its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from adios_tme.config.base import Config, is_changed
from adios_tme.config.data import DataConfig
from adios_tme.config.evaluation import EvaluationConfig
from adios_tme.config.launch import ClusterConfig, LaunchConfig
from adios_tme.config.load import leaves, merge, nest
from adios_tme.config.model import Arch, MaskConfig, StudentConfig, is_timm
from adios_tme.config.objective import LossConfig
from adios_tme.config.optim import OptimConfig
from adios_tme.config.presets import is_file, settings_of
from adios_tme.config.run import ComputeConfig, RunConfig
from adios_tme.config.tracking import TrackingConfig

#: What ``--demo`` changes: sizes at which two cores without a GPU find nuclei in two minutes.
DEMO: dict[str, Any] = {
    "data": {"img_size": 64, "patches": {"patch_size_px": 64}, "batch_size_per_gpu": 24},
    "model": {
        "arch": "vit_tiny",
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 3,
        "drop_path_rate": 0.0,
        "tme_hidden_dim": 256,
        "tme_output_dim": 64,
    },
    "mask": {"mask_model_type": "adios", "crops_per_mask": 0},
    "loss": {"alpha_sparsity": 0.5, "final_temp": 0.2},
    "optim": {"lr": 1e-3, "mask_lr_ratio": 0.5, "total_iterations": 100},
    "run": {"output_dir": "adios_tme_demo", "save_freq": 25, "viz_freq": 25},
}


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as what was given of them."""
    return {
        name: value.model_dump(exclude_unset=True) if isinstance(value, Config) else value
        for name, value in given.items()
    }


def _section(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is given of a section; nothing where it is no section, which is told elsewhere."""
    section = given.get(name)
    return dict(section) if isinstance(section, Mapping) else {}


def _objective_in(given: Mapping[str, Any]) -> Any:
    """The objective that settings ask for, as they are given."""
    return _section(given, "loss").get("objective", "simclr")


class TrainConfig(Config):
    """Train a student encoder and a mask model against each other (ADIOS, Shi et al. 2022).

    Out come an encoder that timm loads and a mask model that tells tissue apart without labels.

    Example:
        >>> from adios_tme import TrainConfig
        >>> config = TrainConfig(preset="laptop", data_path=["patches"], lr=3e-4)
        >>> config.optim.lr, config.data.img_size
        (0.0003, 64)
    """

    demo: bool = False
    """Train a tiny model on generated tissue, on a laptop, with no other argument."""

    preset: str | None = None
    """Settings put under the ones you give: a name that `adios-tme presets` lists, such as `laptop`
    or `stable`, or a YAML file of your own."""

    data: DataConfig = DataConfig()
    model: StudentConfig = StudentConfig()
    mask: MaskConfig = MaskConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    compute: ComputeConfig = ComputeConfig()
    run: RunConfig = RunConfig()
    watch: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    launch: LaunchConfig = LaunchConfig()
    cluster: ClusterConfig = ClusterConfig()

    def __init__(self, **given: Any) -> None:
        """Take settings by section, or by the names of their flags.

        Raises:
            ConfigError: With one line per mistake.
        """
        super().__init__(**given)  # here for its docstring, which the class's own, a help, is not

    @model_validator(mode="before")
    @classmethod
    def _presets_go_under(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        demo = DEMO if given.get("demo") else {}
        name = given.get("preset")
        preset = settings_of(str(name), cls) if name is not None else {}
        plain = _plain(given)
        if name is not None and is_file(str(name)):
            plain["preset"] = None  # the file may change or go; what it says is in the settings
        under = merge(demo, preset)
        if _objective_in(plain) != "simclr":  # no other has a temperature
            under["loss"] = {
                name: value for name, value in under.get("loss", {}).items() if "temp" not in name
            }
        if is_timm(
            str(_section(plain, "model").get("arch"))
        ):  # no other ViT's sizes are asked of it
            mask = merge(_section(under, "mask"), _section(plain, "mask"))
            foreign = {*Arch._fields, "drop_path_rate"}
            if mask.get("mask_model_type") == "adios":
                foreign |= {"patch_size", "num_register_tokens"}
            model = _section(under, "model")
            under["model"] = {name: model[name] for name in model if name not in foreign}
        return merge(under, plain)

    @model_validator(mode="before")  # the last one that is declared is the first to run
    @classmethod
    def _leaves_may_stand_at_the_top(cls, given: Any) -> Any:
        """``TrainConfig(data_path=["patches"], lr=1e-4)``, as in a settings file."""
        if not isinstance(given, Mapping):
            return given
        names = {leaf.path[-1] for leaf in leaves(cls)} - set(cls.model_fields)
        flat = {name: value for name, value in given.items() if name in names}
        rest = {name: value for name, value in given.items() if name not in names}
        return merge(_plain(rest), nest(cls, flat)) if flat else given

    @model_validator(mode="after")
    def _nothing_of_our_vit_is_asked_of_timm(self) -> Self:
        if not is_timm(self.model.arch):
            return self
        asked = [
            (self.compute, "compile", "on"),
            (self.compute, "grad_checkpointing", True),
            (self.loss, "reconstruction_weight", None),
        ]
        if self.mask.mask_model_type == "adios":
            asked += [(self.model, "patch_size", None), (self.model, "num_register_tokens", None)]
        for section, name, value in asked:
            given = getattr(section, name)
            if given == value or (value is None and is_changed(section, name)):
                raise ValueError(
                    f"{name}={given} cannot be had: arch={self.model.arch} is not this package's "
                    f"ViT. Drop it, or use --arch vit_small."
                )
        return self

    @model_validator(mode="after")
    def _patches_tile_the_image(self) -> Self:
        patch_size = self.model.patch_size
        if is_timm(self.model.arch) and self.mask.mask_model_type == "adios":
            return self
        sizes = {"img_size": self.data.img_size, "crop_size": self.mask.crop_size}
        for name, size in sizes.items():
            if size is not None and size % patch_size:
                near = max(patch_size, round(size / patch_size) * patch_size)
                raise ValueError(
                    f"patch_size={patch_size} does not divide {name}={size}. "
                    f"Use --{name.replace('_', '-')} {near}, or change --patch-size."
                )
        return self

    @model_validator(mode="after")
    def _every_mask_has_a_target(self) -> Self:
        targets, num_masks = self.loss.area_targets, self.mask.num_masks
        if targets is not None and len(targets) != num_masks:
            raise ValueError(
                f"area_targets: {len(targets)} targets for num_masks={num_masks}. "
                f"Give one for each mask, or change --num-masks."
            )
        return self

    @model_validator(mode="after")
    def _penalties_are_of_learned_masks(self) -> Self:
        for name in (
            "area_targets",
            "area_over",
            "alpha_entropy",
            "reconstruction_weight",
            "edge_weight",
            "consistency_weight",
            "stain_weight",
        ):
            if self.mask.mask_source != "learned" and is_changed(self.loss, name):
                raise ValueError(
                    f"{name} would be ignored: mask_source={self.mask.mask_source} trains no mask "
                    f"model. Drop it, or use --mask-source learned."
                )
        return self

    @model_validator(mode="after")
    def _the_prior_ends_before_the_mask_model(self) -> Self:
        prior, masks = self.loss.stain_until, self.mask.train_mask_until
        if prior < 1 and prior >= masks:
            raise ValueError(
                f"stain_until={prior} would be ignored: train_mask_until={masks} freezes the mask "
                f"model by then. Drop it, or give less than {masks}."
            )
        return self

    @model_validator(mode="after")
    def _the_demo_is_alone(self) -> Self:
        others = (("data_path", self.data.data_path), ("slurm", self.cluster.slurm))
        for name, given in others:
            if self.demo and given:
                raise ValueError(
                    f"{name} would be ignored: the demo trains on its own tissue, on this "
                    f"machine. Drop --{name.replace('_', '-')}, or --demo."
                )
        return self

    @model_validator(mode="after")
    def _data_is_named(self) -> Self:
        if not self.data.data_path and not self.demo:
            raise ValueError(
                "data_path is missing. Give --data-path FOLDER, or --demo for generated tissue."
            )
        return self
