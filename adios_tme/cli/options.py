"""Commands made from settings: every leaf of a Pydantic tree becomes a flag or an argument.

Flags default to "not given", so that precedence is plain: defaults < ``--config`` file < flags.
"""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import typer
from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from rich.markup import escape
from typer.core import TyperCommand, TyperOption

from adios_tme.config.base import Basic, Config, Flag, Positional
from adios_tme.config.load import Leaf, build, in_words, leaves, likely, nest, read_yaml, value_type

SomeConfig = TypeVar("SomeConfig", bound=Config)

_TRUTH = ("true", "false", "1", "0", "yes", "no", "on", "off")
_TRUTH_METAVAR = "<true|false>"
_NUMBERS_METAVAR = "<number>..."
#: Panel of the help for what belongs to no section, and for basic settings shown alone.
_MAIN = "Main"
#: Key of a command line's context: names of the parameters that its help shows.
_SHOWN = "adios_tme.shown"


def dashes(name: str) -> str:
    """The flag's spelling of a setting's name."""
    return name.replace("_", "-")


class SettingsCommand(TyperCommand):
    """A command that takes flags with dashes or underscores, and truth flags without a value.

    Flags of several numbers take them in a row. ``--help`` shows the basic settings, where some are
    marked so, and ``--help-all`` every one.
    """

    #: What the command's parameters are made from.
    config_class: type[Config]

    @property
    def rare(self) -> frozenset[str]:
        """Names of the settings that ``--help`` leaves out."""
        return _rare(self.config_class)

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters; while help is shown, those that are asked for."""
        shown = ctx.meta.get(_SHOWN)
        return [each for each in super().get_params(ctx) if shown is None or each.name in shown]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help, of the basic settings unless all are asked for."""
        if self.rare and _SHOWN not in ctx.meta:
            ctx.meta[_SHOWN] = {each.name for each in self.params} - self.rare | {"help"}
            for each in self.params:
                if isinstance(each, TyperOption) and each.name in ctx.meta[_SHOWN] - {"help_all"}:
                    each.rich_help_panel = _MAIN
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell flags with dashes, ``--use-lars`` as ``--use-lars true``, and numbers one by one.

        What repeats a flag, as ``--area-targets 0.2 --area-targets 0.8``, is what the parser knows.
        """
        given = list(self._repeated(list(self._completed(args))))
        try:
            return super().parse_args(ctx, given)
        except Exception as error:
            if isinstance(error, typer.BadParameter) and isinstance(
                error.__cause__, ValidationError
            ):
                error.message = _in_our_words(error, error.__cause__)
            flag = str(getattr(error, "option_name", ""))
            meant = likely(flag.lstrip("-").replace("-", "_"), self.config_class)
            if meant and hasattr(error, "possibilities"):  # of an unknown flag
                error.possibilities = [f"--{dashes(_flag_name(leaf))}" for leaf in meant]
            raise

    def _repeated(self, args: list[str]) -> Iterator[str]:
        lists = self._flags(_NUMBERS_METAVAR)
        flag, num_given = "", 0
        for token in args:
            if flag and _is_number(token):
                num_given += 1
                yield from (flag, token) if num_given > 1 else (token,)
                continue
            flag, num_given = (token, 0) if token in lists else ("", 0)
            yield token

    def _completed(self, args: list[str]) -> Iterator[str]:
        truths = self._flags(_TRUTH_METAVAR)
        for token, following in itertools.pairwise([*args, ""]):
            flag, equals, value = token.partition("=")
            flag = dashes(flag) if flag.startswith("--") else flag
            yield flag + equals + value
            if flag in truths and not equals and following.lower() not in _TRUTH:
                yield "true"

    def _flags(self, metavar: str) -> set[str]:
        return {
            flag
            for parameter in self.params
            if parameter.metavar == metavar
            for flag in parameter.opts
        }


def _in_our_words(error: Any, report: ValidationError) -> str:
    mistake, num_values = report.errors()[0], getattr(error.param, "nargs", 1)
    if num_values > 1:
        return f"expected {num_values} numbers in a row, got {mistake['input']!r} among them."
    return in_words(mistake)


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def command_group(name: str, help_text: str) -> typer.Typer:
    """A group of commands, such as ``adios-tme viz``."""
    return typer.Typer(
        name=name,
        help=help_text,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )


def settings_command(
    app: typer.Typer,
    name: str,
    config_class: type[SomeConfig],
    *,
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
) -> Callable[[Callable[[SomeConfig], None]], Callable[[SomeConfig], None]]:
    """Register a function of one settings object as a command.

    Args:
        app: Where the command is added.
        name: Name of the command.
        config_class: Its settings; the docstring is the command's help.
        aliases: Other names, not listed in the help.
        hidden: Leave the command itself out of the help, too.

    Returns:
        A decorator that leaves the function as it is.
    """

    def decorate(function: Callable[[SomeConfig], None]) -> Callable[[SomeConfig], None]:
        def command(**given: Any) -> None:
            given.pop("help_all", None)
            function(_resolve(config_class, given))

        command.__signature__ = inspect.Signature(list(_parameters(config_class)))  # type: ignore[attr-defined]
        help_text = _paragraphs(config_class)
        kind = type("SettingsCommand", (SettingsCommand,), {"config_class": config_class})
        for alias in (name, *aliases):
            app.command(alias, help=help_text, hidden=hidden or alias != name, cls=kind)(command)
        return function

    return decorate


class Described(NamedTuple):
    """A setting as its command's help shows it."""

    name: str
    """The flag, or the argument in capitals."""
    kind: str
    """What it takes, in angle brackets; empty for an argument."""
    text: str
    panel: str
    """Group of the help that it stands in."""
    is_basic: bool
    """Whether ``--help`` shows it."""


def described(config_class: type[Config]) -> Iterator[Described]:
    """Every setting of a command, for its documentation."""
    rare = _rare(config_class)
    for leaf in leaves(config_class):
        name, text = leaf.path[-1], _help_text(leaf, config_class)
        panel = _MAIN if leaf.section is config_class else _panel(leaf.section)
        if _is_argument(leaf):
            yield Described(name.upper(), "", text, "Arguments", True)
        else:
            kind, metavar = _parsed(value_type(leaf.field))
            flag = f"--{dashes(_flag_name(leaf))}"
            metavar = metavar or f"<{kind.__name__.lower()}>"
            yield Described(flag, metavar, text, panel, name not in rare)


def _resolve(config_class: type[SomeConfig], given: dict[str, Any]) -> SomeConfig:
    path: Path | None = given.pop("config")
    flags = nest(config_class, {name: value for name, value in given.items() if value is not None})
    file = read_yaml(path, config_class) if path else {}
    return build(config_class, file, flags, source=str(path) if path else "")


def _parameters(config_class: type[Config]) -> Iterator[inspect.Parameter]:
    for leaf in leaves(config_class):
        yield inspect.Parameter(
            leaf.path[-1],
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_annotation(leaf, config_class),
        )
    yield inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            typer.Option(
                "--config",
                help="YAML file of settings; flags win over it.",
                show_default=False,
                rich_help_panel="Settings file",
            ),
        ],
    )

    if rare := _rare(config_class):
        yield inspect.Parameter(
            "help_all",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[
                bool,
                typer.Option(
                    "--help-all",
                    help=f"Show every setting ({len(rare)} more), in groups, and exit.",
                    is_eager=True,
                    callback=_show_all,
                ),
            ],
        )


def _show_all(ctx: typer.Context, value: bool) -> None:
    if value:
        ctx.meta[_SHOWN] = None
        typer.echo(ctx.get_help())
        raise typer.Exit


def _rare(config_class: type[Config]) -> frozenset[str]:
    """Settings of sections beside those that are marked as basic, where any is."""
    of_sections = [leaf for leaf in leaves(config_class) if leaf.section is not config_class]
    basic = [leaf for leaf in of_sections if _is_basic(leaf)]
    return frozenset(leaf.path[-1] for leaf in of_sections if basic and leaf not in basic)


def _is_basic(leaf: Leaf) -> bool:
    return any(isinstance(mark, Basic) for mark in leaf.field.metadata)


def _annotation(leaf: Leaf, config_class: type[Config]) -> Any:
    kind, metavar = _parsed(value_type(leaf.field))
    help_text = escape(_help_text(leaf, config_class))
    if _is_argument(leaf):
        argument = typer.Argument(help=help_text, show_default=False)
        return _absent(kind, argument)
    option = typer.Option(
        f"--{dashes(_flag_name(leaf))}",
        help=help_text,
        metavar=metavar,
        show_default=False,
        rich_help_panel=_MAIN if leaf.section is config_class else _panel(leaf.section),
    )
    return _absent(kind, option)


def _is_argument(leaf: Leaf) -> bool:
    return any(isinstance(mark, Positional) for mark in leaf.field.metadata)


def _flag_name(leaf: Leaf) -> str:
    given = [mark.name for mark in leaf.field.metadata if isinstance(mark, Flag)]
    return given[0] if given else leaf.path[-1]


def _absent(kind: Any, parameter: Any) -> Any:
    return Annotated[kind | None, parameter]


def _parsed(kind: Any) -> tuple[Any, str | None]:
    """What Typer reads for a type, and what the help calls it (None: Typer's own word)."""
    if kind is bool:
        return str, _TRUTH_METAVAR
    if typing.get_origin(kind) is Literal:
        return kind, "<choice>"
    if typing.get_origin(kind) is tuple:
        arms = typing.get_args(kind)
        if Ellipsis in arms:
            if typing.get_origin(arms[0]) is Literal:
                return list[str], "<choice>"  # which are known, the settings check
            metavar = _NUMBERS_METAVAR if arms[0] in (int, float) else "<text>"
            return list[arms[0]], metavar  # type: ignore[valid-type]
        return kind, " ".join(f"<{arm.__name__}>" for arm in arms)
    return kind, None


def _paragraphs(config_class: type[Config]) -> str:
    """The docstring with a line a paragraph: a terminal breaks lines at its own width.

    Its example in Python is none of a command's.
    """
    text = inspect.cleandoc(config_class.__doc__ or "").partition("\n\nExample:")[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _panel(section: type[Config]) -> str:
    return (section.__doc__ or section.__name__).strip().splitlines()[0].rstrip(".")


def _default(leaf: Leaf, config_class: type[Config]) -> Any:
    """The default of a setting; a command's own default of its section wins over the section's."""
    *sections, name = leaf.path
    if leaf.field.default is PydanticUndefined or not sections:
        return leaf.field.default
    owner: Any = config_class.model_fields[sections[0]].default
    for section in sections[1:]:
        owner = getattr(owner, section)
    return getattr(owner, name)


def _help_text(leaf: Leaf, config_class: type[Config]) -> str:
    """Help text with the choices and the default, which Typer does not know."""
    field = leaf.field
    text = " ".join((field.description or "").split())
    kind = value_type(field)
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
    if typing.get_origin(kind) is Literal:
        text += f" [{', '.join(map(str, typing.get_args(kind)))}]"
    default = _default(leaf, config_class)
    if not (default is PydanticUndefined or default is False or default in (None, ())):
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text += f" [default: {shown}]"
    return text
