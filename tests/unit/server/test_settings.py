import os
from pathlib import Path
from typing import Any

import click
import pytest

from capnp_rig.server.settings import (
    Setting,
    SettingsCommand,
    TextType,
    settings_of,
    unknown_variables,
    variable_of,
)


def read_address(_context: click.Context, _param: click.Parameter, text: str) -> str:
    if ":" not in text:
        raise click.UsageError(f"no address: {text}")
    return text


class Hexadecimal(TextType):
    name = "hexadecimal"

    def convert(self, value: Any, _param: object, _context: object) -> int:
        return int(value, 16)

    def text_of(self, value: int) -> str:
        return f"{value:x}"


@click.command(cls=SettingsCommand)
@click.argument("address", callback=read_address)
@click.option("--workers", type=click.IntRange(1, 8), default=2)
@click.option("--drain-timeout", "drain_timeout_s", type=float, default=30.0)
@click.option("--insecure", is_flag=True)
@click.option("--allow", multiple=True)
@click.option("--certificate")
@click.option("--colour", type=Hexadecimal(), default="ff")
def run(**_options: object) -> None:
    """Serve."""


def parsed(*args: str) -> dict[str, object]:
    return run.make_context("run", list(args)).params


def settings(*args: str) -> list[str]:
    return list(map(str, settings_of(run.make_context("run", list(args)))))


def mistake(*args: str) -> str:
    with pytest.raises(click.UsageError) as raised:
        parsed(*args)
    return raised.value.format_message()


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where tests stand, with a file for all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('address = "a:1"\nworkers = 3\ndrain-timeout = 1\n')
    return tmp_path


def test_each_parameter_has_a_variable() -> None:
    assert list(map(variable_of, run.params)) == [
        "CAPNP_RIG_CONFIG",
        "CAPNP_RIG_ADDRESS",
        "CAPNP_RIG_WORKERS",
        "CAPNP_RIG_DRAIN_TIMEOUT",
        "CAPNP_RIG_INSECURE",
        "CAPNP_RIG_ALLOW",
        "CAPNP_RIG_CERTIFICATE",
        "CAPNP_RIG_COLOUR",
    ]
    help_text = run.get_help(click.Context(run))
    assert all(variable_of(param) in help_text for param in run.params if param.name != "address")


def test_command_line_before_environment_before_file_before_default(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNP_RIG_WORKERS", "4")
    monkeypatch.setenv("CAPNP_RIG_INSECURE", "1")
    monkeypatch.setenv("CAPNP_RIG_ALLOW", "x y")
    assert settings("--config", "s.toml", "--drain-timeout", "2") == [
        'address = "a:1"  # s.toml',
        "workers = 4  # CAPNP_RIG_WORKERS",
        "drain-timeout = 2.0  # command line",
        "insecure = true  # CAPNP_RIG_INSECURE",
        'allow = ["x", "y"]  # CAPNP_RIG_ALLOW',
        "# certificate is not set",
        'colour = "ff"  # default',
    ]
    monkeypatch.setenv("CAPNP_RIG_CONFIG", "s.toml")
    monkeypatch.setenv("CAPNP_RIG_DRAIN_TIMEOUT", "")
    assert settings("b:2", "--workers", "5")[:3] == [
        'address = "b:2"  # command line',
        "workers = 5  # command line",
        "drain-timeout = 1.0  # s.toml",
    ]


def test_what_is_shown_is_a_file_that_says_the_same(written: Path) -> None:
    args = ["--config", "s.toml", "--certificate", 'a "b"\n\\é', "--allow", "1", "--allow", "2"]
    shown = written / "shown.toml"
    shown.write_text("\n".join(settings(*args)), encoding="utf-8")
    assert parsed("--config", "shown.toml") == parsed(*args)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("workers = 3", "workers", 3),
        ("workers = '3'", "workers", 3),
        ("insecure = true", "insecure", True),
        ("insecure = false", "insecure", False),
        ("allow = ['a b', 5]", "allow", ("a b", "5")),
        ("allow = 'a b'", "allow", ("a b",)),
        ("certificate = 7", "certificate", "7"),
        ("drain-timeout = 0.5", "drain_timeout_s", 0.5),
        ("colour = '10'", "colour", 0x10),
        ("\ufeffworkers = 3", "workers", 3),
    ],
)
def test_values_are_read_as_on_the_command_line(
    written: Path, text: str, name: str, value: object
) -> None:
    (written / "x.toml").write_text(text, encoding="utf-8")
    assert parsed("a:1", "--config", "x.toml")[name] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker = 3", "x.toml: unknown setting 'worker': did you mean workers?"),
        (
            "drain_timeout = 3",
            "x.toml: unknown setting 'drain_timeout': did you mean drain-timeout?",
        ),
        ("colour = 0x10", "x.toml: colour must be a text: write it in quotes"),
        ("zzz = 3", "x.toml: unknown setting 'zzz': server run --help names all"),
        ("config = 'y.toml'", "x.toml: unknown setting 'config': server run --help names all"),
        ("[server]\nworkers = 1", "x.toml: unknown setting 'server': server run --help names all"),
        ("workers = 0", "Invalid value for workers in x.toml: 0 is not in the range 1<=x<=8."),
        (
            "workers = true",
            "Invalid value for workers in x.toml: 'true' is not a valid integer range.",
        ),
        (
            "workers = 2.0",
            "Invalid value for workers in x.toml: '2.0' is not a valid integer range.",
        ),
        ("workers = [1]", "x.toml: workers must be a text, a number, true or false"),
        ("workers = 2020-01-01", "x.toml: workers must be a text, a number, true or false"),
        ("workers = \n", "x.toml is no TOML file: Invalid value (at line 1, column 11)"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    written: Path, text: str, message: str
) -> None:
    (written / "x.toml").write_text(text)
    assert mistake("a:1", "--config", "x.toml") == message


def test_a_file_that_cannot_be_read_is_told(written: Path) -> None:
    assert mistake("--config", "no.toml") == "cannot read no.toml: No such file or directory"
    os.mkfifo("pipe.toml")
    for path in ("pipe.toml", "."):
        assert mistake("--config", path) == f"cannot read {path}: it is not a regular file"
    (written / "bytes.toml").write_bytes(b"\xff")
    assert mistake("--config", "bytes.toml").startswith("bytes.toml is no TOML file: ")


def test_a_mistake_elsewhere_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mistake("a:1", "--workers", "x").startswith("Invalid value for '--workers': 'x' is not")
    monkeypatch.setenv("CAPNP_RIG_WORKERS", "9")
    assert mistake("a:1").startswith("Invalid value for CAPNP_RIG_WORKERS: 9 is not")
    assert mistake("a:1", "--workers", "x").startswith("Invalid value for '--workers': 'x' is not")


def test_a_callbacks_words_are_told_with_their_place(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mistake("nowhere") == "no address: nowhere"
    monkeypatch.setenv("CAPNP_RIG_ADDRESS", "nowhere")
    assert mistake() == "CAPNP_RIG_ADDRESS: no address: nowhere"
    monkeypatch.delenv("CAPNP_RIG_ADDRESS")
    (written / "x.toml").write_text("address = 'nowhere'")
    assert mistake("--config", "x.toml") == "address in x.toml: no address: nowhere"


def test_variables_that_look_like_settings_are_told() -> None:
    names = ["HOME", "CAPNP_RIG_WORKERS", "CAPNP_RIG_WORKER", "CAPNP_RIG_PORT_5000_TCP"]
    assert unknown_variables(run, names) == [
        "CAPNP_RIG_WORKER is no setting: did you mean CAPNP_RIG_WORKERS?"
    ]


def test_a_setting_is_a_line_of_toml() -> None:
    assert str(Setting("a", 5, "b")) == "a = 5  # b"
    assert str(Setting("a", 'x"', "b")) == 'a = "x\\""  # b'
