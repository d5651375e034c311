"""The options that the rig adds to Locust's, on the command line and in the web form.

Locust's --help does not know them: --rig-help shows them, those of shapes included.

A user's mistake ends the command with one line, before anything is forked. In Locust's `init` event
it would be too late: with --processes the workers are forked by then, and outlive their parent.

The web page's form has no option that names a file or a place to write to, since not everybody who
can open the page may choose those. A form that has one all the same is refused; Locust itself would
take it.

The master sends the parsed options to its workers, so they are plain values: conditions and CPU
lists stay text.
"""

import math
import sys
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from click import UsageError
from locust.argument_parser import LocustArgumentParser, default_args_dict
from locust.util.timespan import parse_timespan

from capnp_rig.loadtest.engine.cpu_pin import PinError, parse_pin
from capnp_rig.loadtest.locust_rig.user_tls import security_of, tls_of_options
from capnp_rig.loadtest.locust_rig.workload import workload_config
from capnp_rig.loadtest.protocols import CAPNP, checks_content, load_any_workload
from capnp_rig.loadtest.results.catalog import check_name
from capnp_rig.loadtest.results.writing import probe
from capnp_rig.loadtest.scrape.scraper import Scraper, check_url
from capnp_rig.loadtest.scrape.series import ScrapeError
from capnp_rig.loadtest.stats.thresholds import ThresholdError, parse_threshold
from capnp_rig.loadtest.workload import WorkloadError
from capnp_rig.objects import errors
from capnp_rig.rigcli import os_error_text
from capnp_rig.rigcli.address import AddressError, parse_address, parse_addresses
from capnp_rig.rigcli.message_limit import MessageSize
from capnp_rig.rigcli.quantities import MOST_IN_FLIGHT, parse_rate_hz, parse_seconds
from capnp_rig.wire.encoding.frames import MESSAGE_BYTES

Value = TypeVar("Value")
_NO_HOST = "no server to load: give its address as -H host:port"
_STOP_TIMEOUT = "2s"


# --- values ----------------------------------------------------------------------------------


def _checked(parse: Callable[[str], object], mistake: type[Exception]) -> Callable[[str], str]:
    """Return a type for a text that `parse` reads without raising a `mistake`; it stays text."""

    def check(text: str) -> str:
        try:
            parse(text)
        except mistake as error:
            raise ArgumentTypeError(str(error)) from error
        return text

    return check


_addresses = _checked(parse_addresses, AddressError)
_pin = _checked(parse_pin, PinError)
# Such as ``p99>2ms``.
condition = _checked(parse_threshold, ThresholdError)


def at_least(least: int, most: float = math.inf) -> Any:
    """Return a type for whole numbers from `least` on, up to `most`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise ArgumentTypeError(f"{value} is less than {least}")
        if value > most:
            raise ArgumentTypeError(f"{value} is more than {most}")
        return value

    # As argparse names it: "invalid int value".
    number.__name__ = "int"
    return number


def number_above(least: float) -> Any:
    """Return a type for finite numbers over `least`."""

    def number(text: str) -> float:
        value = float(text)
        if not least < value < math.inf:
            raise ArgumentTypeError(f"{text} is not over {least:g}")
        return value

    number.__name__ = "float"
    return number


def _told(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return a type whose ValueError is told in its own words: argparse has words of its own."""

    def read(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from error

    return read


_rate = _told(parse_rate_hz)


@_told
def _message_size(text: str) -> int:
    try:
        return MessageSize().convert(text, None, None)
    except UsageError as error:
        raise ValueError(error.message) from error


def at_least_seconds(least_s: float) -> Callable[[str], float]:
    """Return a type for durations over 0, and from `least_s` on; a number alone is one in s."""

    @_told
    def seconds(text: str) -> float:
        value = parse_seconds(text)
        if not value or value < least_s:
            raise ValueError(f"{text} is not {f'at least {least_s:g}s' if least_s else 'over 0s'}")
        return value

    return seconds


seconds = at_least_seconds(0)


def _run_time(text: str) -> int:
    try:
        run_time_s: int = parse_timespan(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    if not run_time_s:
        # Without a limit, Locust thinks, and runs on.
        raise ArgumentTypeError(f"{text} is no time to run")
    return run_time_s


def _readable_file(text: str) -> str:
    try:
        Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ArgumentTypeError(f"cannot read {text}: {error}") from error
    return text


def _folder(text: str) -> str:
    place = Path(text)
    if place.exists() and not place.is_dir():
        raise ArgumentTypeError(f"{text} is no folder")
    return text


class _RigHelp(Action):
    """Shows the options that --help lacks: Locust answers that before it reads its locustfile."""

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        known = {*default_args_dict(), "help", "version"}
        formatter = parser._get_formatter()
        formatter.start_section("Beside Locust's own options (locust --help)")
        formatter.add_arguments([action for action in parser._actions if action.dest not in known])
        formatter.end_section()
        sys.stdout.write(formatter.format_help())
        parser.exit()


# --- declaring -------------------------------------------------------------------------------


def add_number(
    parser: LocustArgumentParser, name: str, kind: Any, default: float, metavar: str, text: str
) -> None:
    """Declare a number, for the command line and the web form; `kind` reads and checks it."""
    text = f"{text} (default: {default:g})"
    parser.add_argument(name, type=kind, default=default, metavar=metavar, help=text)


def add_options(parser: LocustArgumentParser, user_classes: Sequence[Any] | None = None) -> None:
    """Declare what the rig adds; a host is an address, and calls under way are waited for.

    `user_classes` are those that need an address: their own `host` may stand for -H. Without
    them the options are not checked as a whole, which is done once per process.
    """
    for action in parser._actions:
        if action.dest == "host":
            action.type = _addresses
            action.help = (
                "Server to load: host:port, [ipv6]:port or unix:/path; several share the users, "
                "as a:5000,b:5000"
            )
            action.metavar = "<ADDR[,ADDR…]>"
        elif action.dest == "run_time":
            action.type = _run_time
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
    _add_own(parser)
    if user_classes is not None:
        _check_while_parsing(parser, user_classes)


def _add_own(parser: LocustArgumentParser) -> None:
    def add(names: str, kind: Any, metavar: str, text: str, **more: Any) -> None:
        """Declare an option of the command line alone, by its names."""
        parser.add_argument(
            *names.split(), type=kind, metavar=metavar, help=text, include_in_web_ui=False, **more
        )

    text = "Calls that each ReverseUser keeps in flight on its connection, at most in an open loop"
    add_number(parser, "--in-flight", at_least(1, MOST_IN_FLIGHT), 1, "<int>", text)
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="<calls/s>",
        help="Open loop: calls are due at this rate, all users together, and times count from "
        "when they were due (default: closed, users wait for replies)",
    )
    parser.add_argument(
        "--arrivals",
        choices=["poisson", "fixed"],
        default="poisson",
        help="How the calls of an open loop are spread (default: poisson)",
    )
    text = "Deadline of each call, in seconds"
    add_number(parser, "--call-timeout", seconds, 15.0, "<seconds>", text)
    add(
        "--pin",
        _pin,
        "<auto|CPU,…>",
        "Pin each process that makes load to a CPU: auto takes the last one first, by worker "
        "number; a list is taken in turn. A worker's own --pin comes before the master's",
    )
    parser.add_argument(
        "--max-message",
        type=_message_size,
        default=MESSAGE_BYTES,
        metavar="<size>",
        help="Largest message of the capnp stack, in either direction: 64KiB to 512MiB "
        "(default: 4MiB)",
    )
    # Locust itself has --tls-cert and --tls-key, for its page.
    parser.add_argument(
        "--capnp-tls",
        action="store_true",
        help="Connect over TLS; implied by each --capnp-tls-…",
        include_in_web_ui=False,
    )
    add("--capnp-tls-ca", _readable_file, "<file>", "Trust these certificates, not the system's")
    add("--capnp-tls-cert", _readable_file, "<file>", "Show this certificate to the server")
    add("--capnp-tls-key", _readable_file, "<file>", "Its key, if that is in another file")
    text = "What the server's certificate names, if not the host"
    add("--capnp-tls-name", str, "<name>", text)
    text = "Size of each generated text in bytes of UTF-8"
    add_number(parser, "--payload-bytes", at_least(1), 32, "<int>", text)
    parser.add_argument(
        "--payload-kind",
        choices=["text", "binary"],
        default="text",
        help="binary sends bytes; on capnp to --service capnp_rig.server.services.binary:Binary "
        "(default: text)",
    )
    parser.add_argument(
        "--text", default="", metavar="<text>", help="Send this text, after a nonce, each time"
    )
    add(
        "--corpus",
        _readable_file,
        "<file>",
        "Send the lines of this file in turn, each after a nonce",
    )
    text = "Seed of the generated texts, and of the UUIDs in params"
    add_number(parser, "--data-seed", int, 1, "<int>", text)
    # Params may name a file as well.
    add("--schema", str, "<file>", "Call a method of this .capnp file")
    text = "Search this folder for what the schema imports with a / in front; repeatable"
    add("-I --import-path", str, "<folder>", text, action="append")
    add("--interface", str, "<name>", "Interface to call; needed where the schema has several")
    add("--method", str, "<name>", "Method to call; needed where the interface has several")
    text = "Calls that lead to the capability to call, once per connection, as 'login().session'"
    add("--via", str, "<calls>", text)
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="Make the calls of --via part of each call, in one round trip",
        include_in_web_ui=False,
    )
    add("--params", str, "<json|@file>", "Params, a JSON object or one per line")
    text = "Fields that the results must have, as JSON; without it, replies to params without "
    add("--expect", str, "<json|@file>", f"{text}templates must equal the first one")
    parser.add_argument(
        "--check",
        choices=["content", "id"],
        help="What is compared of every reply: its content, or its id alone (default: content)",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="Log the first reply as JSON; on the stack capnp",
        include_in_web_ui=False,
    )
    add(
        "--fail-if",
        condition,
        "<condition>",
        "Exit with 1 if it holds, as p99>2ms, errors>0.1%%, calls/s<20000; repeatable. With "
        "one on errors, failed calls alone no longer fail the run",
        action="append",
        default=[],
    )
    parser.add_argument(
        "--allow-void",
        action="store_true",
        help="Exit with 0 instead of 5 where the run is void",
        include_in_web_ui=False,
    )
    add(
        "--results",
        _folder,
        "<folder>",
        "Write each run into a folder of its own, <utc>-<commit>, in this one",
    )
    add(
        "--scrape",
        _told(check_url),
        "<url>",
        "Read this Prometheus endpoint every second and draw it beside the times, with --results; "
        "host:port stands for http://host:port/metrics. Repeatable",
        action="append",
        default=[],
    )
    text = "Serve the figures so far to a Prometheus server, at http://ADDR/metrics"
    add("--metrics", _checked(parse_address, AddressError), "<ADDR>", text)
    add("--name", _told(check_name), "<name>", "Call the runs so, for loadtest list and compare")


# --- mistakes --------------------------------------------------------------------------------


def _check_while_parsing(parser: LocustArgumentParser, user_classes: Sequence[Any]) -> None:
    """Report a mistake in the options as a whole as argparse reports one in a single option."""
    parse: Any = parser.parse_args

    def parse_args(*args: Any, **kwargs: Any) -> Namespace:
        options: Namespace = parse(*args, **kwargs)
        needs_host = any(each.abstract is False and each.host is None for each in user_classes)
        mistake = None
        # A worker gets all but its own --pin from the master.
        if not options.worker:
            has_host = options.host or not options.headless or not needs_host
            mistake = _workload_mistake(options) if has_host else _NO_HOST
        if mistake is not None:
            parser.exit(2, f"{parser.prog}: error: {mistake}\n")
        if options.results and not options.worker:
            try:
                probe(Path(options.results))
            except OSError as error:
                parser.exit(1, f"{parser.prog}: error: {os_error_text(error)}\n")
        if not options.worker:
            try:
                for url in options.scrape:
                    Scraper(url).check()
            except ScrapeError as error:
                parser.exit(1, f"{parser.prog}: error: {error}\n")
        return options

    parser.parse_args = parse_args


def _workload_mistake(options: Namespace) -> str | None:
    stack = getattr(options, "stack", CAPNP)
    try:
        workload = load_any_workload(stack, workload_config(options))
        checks_content(stack, workload, options.check)
        if options.show and stack != CAPNP:
            return f"--show is for the stack capnp, not for {stack}: see loadtest run --show"
        security_of(tls_of_options(options), stack)
    except (WorkloadError, errors.UsageError) as error:
        return str(error)
    return None


# --- the web form ----------------------------------------------------------------------------


@cache
def _rig_actions() -> dict[str, Action]:
    """Return the rig's options by name."""
    parser = LocustArgumentParser(add_help=False)
    add_options(parser)
    return {action.dest: action for action in parser._actions}


class FormError(ValueError):
    """A form of the web UI is refused; the message says why."""


def form_values(form: Mapping[str, str], options: Namespace) -> dict[str, Any]:
    """Return the values that a form of the web UI gives to the rig's options, by name.

    Locust would convert a field to the type of its old value, which None does not tell.

    Raises:
        FormError: It names what only the command line may, or has a mistake as there.
    """
    values = {}
    for name, text in form.items():
        if name == "run_time" and text:
            _told_in_form("--run-time", _run_time, text)
        action = _rig_actions().get(name)
        if action is None:
            continue
        option = action.option_strings[0]
        if not getattr(action, "include_in_web_ui", True):
            raise FormError(f"{option} can only be given on the command line")
        values[name] = _told_in_form(option, partial(_read, action), text)
    mistake = _workload_mistake(Namespace(**{**vars(options), **values}))
    if mistake is not None:
        raise FormError(mistake)
    return values


def _told_in_form(option: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except (ArgumentTypeError, TypeError, ValueError) as error:
        raise FormError(f"{option}: {error}") from error


def _read(action: Action, text: str) -> Any:
    """Return the value of a field; an empty one is the default."""
    if not text:
        return action.default
    if action.choices is not None and text not in action.choices:
        expected = ", ".join(action.choices)
        raise ArgumentTypeError(f"unknown value {text!r}; expected one of {expected}")
    return action.type(text) if callable(action.type) else text
