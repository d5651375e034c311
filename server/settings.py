"""Where the settings of `server run` come from: command line, environment or TOML file.

Each option may also stand in the environment, as CAPNP_RIG_ and its name in capitals, and in the
file of --config under its name. The first of these that has it wins; then comes the default. All
are read as on the command line, by the same types, so that an option is declared once, with click.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

PREFIX = "CAPNP_RIG_"
_FILE = f"{__name__}.file"
_ARGUMENTS = f"{__name__}.arguments"


class SettingsCommand(click.Command):
    """A command whose parameters may all be set in the environment and in the file of --config."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.insert(0, _config_option())
        for param in self.params:
            param.envvar = variable_of(param)
            if isinstance(param, click.Option):
                param.show_envvar = True

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse; an error of a value says where that stands."""
        context.meta[_ARGUMENTS] = tuple(args)
        try:
            return super().parse_args(context, args)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:
            if error.param is not None:
                error.param_hint = _place(context, error.param)
            raise
        except click.UsageError as error:
            # A callback's own words.
            for param in self.params:
                if _is_refused(context, param) and _is_elsewhere(context, param):
                    where = _place(context, param)
                    raise click.UsageError(f"{where}: {error.message}", error.ctx) from error
            raise


class TextType(click.ParamType):  # type: ignore[type-arg, unused-ignore] # not at run time
    """A type whose values are texts in a file, such as a number that is not decimal.

    TOML's 0o660 and 432 are the same number to who reads them, so no number is converted.
    """

    def text_of(self, value: Any) -> str:
        """Return the text that `convert` makes `value` of."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it holds: its key in a file, its value, and where that came from."""

    key: str
    value: object
    source: str

    def __str__(self) -> str:
        """Return its line in a file; one that has no value cannot be set to none in TOML."""
        if self.value is None:
            return f"# {self.key} is not set"
        return f"{self.key} = {_toml(self.value)}  # {self.source}"


def parsed_again(context: click.Context) -> click.Context:
    """Return what the command line of a `SettingsCommand` says now, its file read again.

    Raises:
        click.UsageError: It says it no longer.
    """
    args = list(context.meta[_ARGUMENTS])
    return context.command.make_context(context.info_name, args, parent=context.parent)


def settings_of(context: click.Context) -> list[Setting]:
    """Return what holds after a `SettingsCommand` was parsed, in the order of its help."""
    return [
        Setting(key_of(param), _shown(param, context.params[param.name]), _source(context, param))
        for param in context.command.params
        if param.name in context.params
    ]


def key_of(param: click.Parameter) -> str:
    """Return the name of a parameter in a file: the longest of an option, without the dashes."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len).lstrip("-")
    return str(param.name)


def variable_of(param: click.Parameter) -> str:
    """Return the name of a parameter in the environment."""
    return PREFIX + key_of(param).replace("-", "_").upper()


def unknown_variables(command: click.Command, names: Iterable[str]) -> list[str]:
    """Return a line for each of our variables that is like one of an option, and is none.

    They are no errors: Kubernetes, for one, sets variables of this prefix for a service of our
    name.
    """
    import difflib

    known = [variable_of(param) for param in command.params]
    ours = sorted(name for name in names if name.startswith(PREFIX) and name not in known)
    near = {name: difflib.get_close_matches(name, known, 1, 0.85) for name in ours}
    return [f"{name} is no setting: did you mean {like[0]}?" for name, like in near.items() if like]


def read_file(path: str, params: Iterable[click.Parameter]) -> dict[str, Any]:
    """Return the values in a file as texts, by the names of `params`, for click to convert.

    Raises:
        click.UsageError: The file cannot be read, or holds what is no setting.
    """
    # 2 ms of a start that needs no file.
    import tomllib

    try:
        # A pipe would be read for ever, or be empty at the next reload.
        if Path(path).exists() and not Path(path).is_file():
            raise click.UsageError(f"cannot read {path}: it is not a regular file")
        # Some editors begin a file with a byte order mark, which tomllib does not know.
        values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no TOML file: {error}") from error
    known = {key_of(param): param for param in params}
    return {
        str(_known(path, key, known).name): _texts(path, known[key], value)
        for key, value in values.items()
    }


def _config_option() -> click.Option:
    return click.Option(
        ["--config"],
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_on_config,
        help="TOML file with settings, each under the name of its option.",
    )


def _on_config(context: click.Context, option: click.Parameter, path: str | None) -> None:
    if path is not None:
        context.meta[_FILE] = path
        params = [param for param in context.command.params if param is not option]
        context.default_map = read_file(path, params)


def _known(path: str, key: str, known: Mapping[str, click.Parameter]) -> click.Parameter:
    if key in known:
        return known[key]
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    advice = f"did you mean {near[0]}?" if near else "server run --help names all"
    raise click.UsageError(f"{path}: unknown setting {key!r}: {advice}")


def _texts(path: str, param: click.Parameter, value: object) -> str | list[str]:
    if isinstance(param, click.Option) and param.multiple:
        return [
            _text(path, param, each) for each in (value if isinstance(value, list) else [value])
        ]
    return _text(path, param, value)


def _shown(param: click.Parameter, value: object) -> object:
    return param.type.text_of(value) if isinstance(param.type, TextType) else value


def _text(path: str, param: click.Parameter, value: object) -> str:
    if isinstance(param.type, TextType) and not isinstance(value, str):
        raise click.UsageError(f"{path}: {key_of(param)} must be a text: write it in quotes")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise click.UsageError(f"{path}: {key_of(param)} must be a text, a number, true or false")


def _is_refused(context: click.Context, param: click.Parameter) -> bool:
    """Return whether the value of a parameter was found and then not taken."""
    name = str(param.name)
    is_found = context.get_parameter_source(name) is not None
    return is_found and param.expose_value and name not in context.params


def _is_elsewhere(context: click.Context, param: click.Parameter) -> bool:
    source = context.get_parameter_source(str(param.name))
    return source in (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


def _place(context: click.Context, param: click.Parameter) -> str:
    match context.get_parameter_source(str(param.name)):
        case ParameterSource.ENVIRONMENT:
            return variable_of(param)
        case ParameterSource.DEFAULT_MAP:
            return f"{key_of(param)} in {context.meta[_FILE]}"
        case _:
            # An option's own hint names its variable, which has nothing to do with it here.
            return click.Parameter.get_error_hint(param, context)


def _source(context: click.Context, param: click.Parameter) -> str:
    match context.get_parameter_source(str(param.name)):
        case ParameterSource.ENVIRONMENT:
            return variable_of(param)
        case ParameterSource.DEFAULT_MAP:
            return str(context.meta[_FILE])
        case ParameterSource.DEFAULT:
            return "default"
        case _:
            return "command line"


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    # A basic string of TOML has the escapes of JSON.
    return json.dumps(str(value), ensure_ascii=False)
