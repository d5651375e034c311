"""The options that the rig adds to Locust's, on the command line and in the web form.

Locust's --help does not know them: --rig-help shows them, those of shapes included.

A user's mistake ends the command with one line before anything is forked: in `init` it would be
too late, since with --processes the workers are forked by then and outlive a parent that exits.

What names a file, or a place to write to, is no business of whoever can open the web page: such
options are not in its form, and a form that has them nevertheless is refused (Locust itself
would take them).

On its way to the workers an option travels as what it is in the parsed options, so those are
plain values: conditions and CPU lists stay text.
"""

import math
import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from locust.argument_parser import LocustArgumentParser, default_args_dict

from capnp_rig.loadtest.engine.cpu_pin import PinError, parse_pin
from capnp_rig.loadtest.stats.thresholds import ThresholdError, parse_threshold
from capnp_rig.rigcli.address import AddressError, parse_address

CLOSED = "closed"
_NO_HOST = "no server to load: give its address as -H host:port"
_HIGHEST_RATE_HZ = 1e7
_STOP_TIMEOUT = "2s"


# --- values ----------------------------------------------------------------------------------


def _address(text: str) -> str:
    try:
        parse_address(text)
    except AddressError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def at_least(least: int) -> Any:
    """Return a type for whole numbers from `least` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ArgumentTypeError(f"{value} is less than {least}")
        return value

    # As argparse names it: "invalid int value".
    number.__name__ = "int"
    return number


def number_above(least: float, *, inclusive: bool = False) -> Any:
    """Return a type for finite numbers over `least`, or from it on."""

    def number(text: str) -> float:
        value = float(text)
        if not (least < value < math.inf or (inclusive and value == least)):
            raise ArgumentTypeError(
                f"{text} is not {'at least' if inclusive else 'over'} {least:g}"
            )
        return value

    number.__name__ = "float"
    return number


def seconds(text: str) -> float:
    """Read a positive number of seconds."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def _rate(text: str) -> float | None:
    if text == CLOSED:
        return None
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz <= _HIGHEST_RATE_HZ:
        raise ArgumentTypeError(f"bad rate {text!r}: expected calls per second, or {CLOSED}")
    return rate_hz


def condition(text: str) -> str:
    """Read a condition such as ``p99>2ms``."""
    try:
        parse_threshold(text)
    except ThresholdError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def _pin(text: str) -> str:
    try:
        parse_pin(text)
    except PinError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


def _readable_file(text: str) -> str:
    try:
        Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ArgumentTypeError(f"cannot read {text}: {error}") from error
    return text


def _folder(text: str) -> str:
    """Check that a folder is there, or can be made."""
    place = Path(text).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ArgumentTypeError(f"{place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ArgumentTypeError(f"cannot write to {place}")
    return text


class _RigHelp(Action):
    """Shows what --help does not: Locust answers that before it has read its locustfile."""

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        known = {*default_args_dict(), "help", "version"}
        formatter = parser._get_formatter()
        formatter.start_section("Beside Locust's own options (locust --help)")
        formatter.add_arguments([one for one in parser._actions if one.dest not in known])
        formatter.end_section()
        sys.stdout.write(formatter.format_help())
        parser.exit()


# --- declaring -------------------------------------------------------------------------------


def add_options(parser: LocustArgumentParser) -> None:
    """Declare what the rig adds; a host is an address, and calls under way are waited for."""
    for action in parser._actions:
        if action.dest == "host":
            action.type = _address
            action.help = "Server to load: host:port, [ipv6]:port or unix:/path"
            action.metavar = "<ADDR>"
        elif action.dest == "stop_timeout":
            # Locust's own, 0, would cut calls off at the end, and they would count as failed.
            action.default = _STOP_TIMEOUT
            action.help = (
                f"How long calls under way are waited for in the end (default: {_STOP_TIMEOUT})"
            )
    parser.add_argument(
        "--rig-help",
        action=_RigHelp,
        nargs=0,
        default=SUPPRESS,
        help="Show the options that are not Locust's own, and exit",
        include_in_web_ui=False,
    )
    _add_load(parser)
    _add_texts(parser)
    _add_method(parser)
    _add_outcome(parser)
    _check_while_parsing(parser)


def _add_load(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--in-flight",
        type=at_least(1),
        default=1,
        metavar="<int>",
        help="Calls that each ReverseUser keeps in flight on its connection, or in an open loop "
        "has at most (default: 1)",
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="<calls/s>",
        help="Open loop: calls are due at this rate, all users together, and times count from "
        f"when they were due (default: {CLOSED}, users wait for replies)",
    )
    parser.add_argument(
        "--arrivals",
        choices=["poisson", "fixed"],
        default="poisson",
        help="How the calls of an open loop are spread (default: poisson)",
    )
    parser.add_argument(
        "--call-timeout",
        type=seconds,
        default=15.0,
        metavar="<seconds>",
        help="Deadline of each call, in seconds (default: 15)",
    )
    parser.add_argument(
        "--pin",
        type=_pin,
        metavar="<auto|CPU,…>",
        help="Pin each process that makes load to a CPU: auto takes the last one first, by worker "
        "number; a list is taken in turn. A worker's own --pin comes before the master's",
        include_in_web_ui=False,
    )


def _add_texts(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--payload-bytes",
        type=at_least(1),
        default=32,
        metavar="<int>",
        help="Size of each generated text in bytes of UTF-8 (default: 32)",
    )
    parser.add_argument(
        "--payload-kind",
        choices=["text", "binary"],
        default="text",
        help="binary sends bytes; on capnp to --service server.services.binary:Binary "
        "(default: text)",
    )
    parser.add_argument(
        "--text", default="", metavar="<text>", help="Send this text, after a nonce, each time"
    )
    parser.add_argument(
        "--corpus",
        type=_readable_file,
        metavar="<file>",
        help="Send the lines of this file in turn, each after a nonce",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--data-seed",
        type=int,
        default=1,
        metavar="<int>",
        help="Seed of the generated texts, and of the UUIDs in params (default: 1)",
    )


def _add_method(parser: LocustArgumentParser) -> None:
    kinds = {
        "schema": ("<file>", "Call a method of this .capnp file"),
        "interface": ("<name>", "Interface to call; needed where the schema has several"),
        "method": ("<name>", "Method to call; needed where the interface has several"),
        "params": ("<json|@file>", "Params, a JSON object or one per line"),
        "expect": ("<json|@file>", "Fields that the results must have, as JSON"),
    }
    for name, (metavar, text) in kinds.items():
        # Params may name a file as well.
        parser.add_argument(f"--{name}", metavar=metavar, help=text, include_in_web_ui=False)


def _add_outcome(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--fail-if",
        type=condition,
        action="append",
        default=[],
        metavar="<condition>",
        help="Exit with 1 if it holds, as p99>2ms, errors>0.1%%, calls/s<20000; repeatable. With "
        "this, failed calls alone no longer fail the run: say errors>0 for that",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--results",
        type=_folder,
        metavar="<folder>",
        help="Write each run into a folder of its own, <utc>-<commit>, in this one",
        include_in_web_ui=False,
    )


# --- mistakes --------------------------------------------------------------------------------

_hosts: list[Any] = []


def needs_host(user_class: Any) -> None:
    """Register a class whose `host` is needed where -H is missing."""
    _hosts.append(user_class)


def _default_host() -> bool:
    concrete = [one for one in _hosts if one.abstract is False]
    return all(one.host is not None for one in concrete)


_checked: list[bool] = []


def _check_while_parsing(parser: LocustArgumentParser) -> None:
    """Make what only all options together tell end as any other mistake in the usage does."""
    parse: Any = parser.parse_args

    def parse_args(*args: Any, **kwargs: Any) -> Namespace:
        options: Namespace = parse(*args, **kwargs)
        # The web UI parses the command line anew for each page.
        mistake = None if _checked else _mistake(options)
        _checked.append(True)
        if mistake is not None:
            parser.exit(2, f"{parser.prog}: error: {mistake}\n")
        return options

    parser.parse_args = parse_args


def _mistake(options: Namespace) -> str | None:
    """Return what is wrong with the options as a whole, None where nothing is."""
    # A worker gets all but its own --pin from the master.
    if options.worker:
        return None
    if options.headless and not options.host and not _default_host():
        return _NO_HOST
    return _workload_mistake(options)


def _workload_mistake(options: Namespace) -> str | None:
    from capnp_rig.loadtest.locust_rig.workload import workload_config
    from capnp_rig.loadtest.workload import WorkloadError, load_workload

    try:
        load_workload(workload_config(options))
    except WorkloadError as error:
        return str(error)
    return None


# --- the web form ----------------------------------------------------------------------------


@cache
def _own_actions() -> dict[str, Action]:
    """Return the rig's options by name."""
    parser = LocustArgumentParser(add_help=False)
    add_options(parser)
    return {action.dest: action for action in parser._actions}


class FormError(ValueError):
    """A form of the web UI is refused; the message says why."""


def form_values(form: Mapping[str, str], options: Namespace) -> dict[str, Any]:
    """Return what a form of the web UI says about the rig's own options, by name.

    Locust would convert a field to the type of the old value, and None has none to go by.

    Raises:
        FormError: It names what only the command line may, or has a mistake as there.
    """
    values = {}
    for name, text in form.items():
        action = _own_actions().get(name)
        if action is None:
            continue
        option = action.option_strings[0]
        if not getattr(action, "include_in_web_ui", True):
            raise FormError(f"{option} can only be given on the command line")
        try:
            values[name] = _read(action, text)
        except (ArgumentTypeError, TypeError, ValueError) as error:
            raise FormError(f"{option}: {error}") from error
    mistake = _workload_mistake(Namespace(**{**vars(options), **values}))
    if mistake is not None:
        raise FormError(mistake)
    return values


def _read(action: Action, text: str) -> Any:
    """Return the value of a field; an empty one is the default."""
    if not text:
        return action.default
    if action.choices is not None and text not in action.choices:
        raise ArgumentTypeError(f"{text!r} is none of {', '.join(action.choices)}")
    return action.type(text) if callable(action.type) else text
