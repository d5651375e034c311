"""The rig in Locust's web UI: two tabs of its own, and the page /rig with all there is.

The tabs are tables of Locust's own page, which fills them every 2 s with rows that come along with
its figures. /rig is a page of ours: one file that asks for nothing but /rig/stats, each second.
Both are behind the login if there is one. Forms are checked before Locust takes them.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request
from locust.env import Environment
from werkzeug.datastructures import ImmutableMultiDict

from capnp_rig.loadtest.locust_rig.live_panel import (
    PROCESS_COLUMNS,
    TIMES_COLUMNS,
    process_data,
    times_data,
)
from capnp_rig.loadtest.locust_rig.options import FormError, form_values

PAGE = Path(__file__).resolve().parent / "live_panel.html"
TIMES_TAB, PROCESSES_TAB = "rig-times", "rig-processes"
# Nothing is loaded from anywhere, and only our own figures are asked for.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
)

PanelSource = Callable[[], dict[str, Any]]


def add_panel(environment: Environment, source: PanelSource) -> None:
    """Add tabs, page and checks to the web UI; `source` returns what is to be shown."""
    ui: Any = environment.web_ui
    options = environment.parsed_options
    assert options is not None
    ui.template_args.update(_template_args())
    ui.app.before_request(lambda: _read_form(environment))
    ui.app.after_request(lambda response: _add_tables(response, source))
    ui.app.register_blueprint(_pages(environment, source), url_prefix=options.web_base_path or None)


def _template_args() -> dict[str, Any]:
    tables = {TIMES_TAB: TIMES_COLUMNS, PROCESSES_TAB: PROCESS_COLUMNS}
    return {
        "extended_tabs": [
            {"key": TIMES_TAB, "title": "Rig: times"},
            {"key": PROCESSES_TAB, "title": "Rig: processes"},
        ],
        "extended_tables": [
            {"key": tab, "structure": [{"key": key, "title": title} for key, title in columns]}
            for tab, columns in tables.items()
        ],
        # The one place where Locust shows a link of somebody else's.
        "extended_csv_files": [{"href": "./rig", "title": "Rig: live page"}],
    }


def _pages(environment: Environment, source: PanelSource) -> Blueprint:
    ui: Any = environment.web_ui
    runner: Any = environment.runner

    def page() -> Response:
        return Response(_page(), headers={"Content-Security-Policy": _POLICY})

    def stats() -> Response:
        state = {"state": runner.state, "users": runner.user_count, "host": environment.host}
        return jsonify({**state, **source()})

    blueprint = Blueprint("rig", __name__)
    for path, view in (("/rig", page), ("/rig/stats", stats)):
        blueprint.add_url_rule(path, view_func=ui.auth_required_if_enabled(view))
    return blueprint


@cache
def _page() -> str:
    return PAGE.read_text(encoding="utf-8")


def _read_form(environment: Environment) -> Response | None:
    """Take the rig's own options out of a form that starts a run; refuse what is wrong in it."""
    if request.endpoint != "locust.swarm":
        return None
    options = environment.parsed_options
    assert options is not None
    try:
        values = form_values(request.form, options)
    except FormError as error:
        return jsonify({"success": False, "message": str(error), "host": environment.host})
    vars(options).update(values)
    rest = [pair for pair in request.form.items(multi=True) if pair[0] not in values]
    request.form = ImmutableMultiDict(rest)
    return None


def _add_tables(response: Response, source: PanelSource) -> Response:
    """Send the rows of the tabs along with Locust's own figures."""
    if request.endpoint != "locust.request_stats" or not response.is_json:
        return response
    shown = source()
    tables = [
        {"key": TIMES_TAB, "data": times_data(shown)},
        {"key": PROCESSES_TAB, "data": process_data(shown)},
    ]
    # Locust keeps its response for two seconds: it must not be changed.
    return Response(
        json.dumps({**response.get_json(), "extended_stats": tables}), mimetype="application/json"
    )
