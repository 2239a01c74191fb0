"""The OpenAPI document is true: schemathesis asks what it allows, and more."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
from tests.server.conftest import Served

EXAMPLES = int(os.environ.get("CLRELKT_SCHEMA_EXAMPLES", "15"))
OPERATIONS = (
    ("GET", "/search"),
    ("POST", "/search"),
    ("GET", "/documents"),
    ("GET", "/documents/{id}"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
)


def test_the_operations_are_those_that_are_tested(served: Served) -> None:
    paths = served.get("/openapi.json").json["paths"]
    found = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described(served: Served, method: str, path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis
        from hypothesis import HealthCheck, given, settings
        from schemathesis.checks import CHECKS, load_all_checks
    load_all_checks()
    names = (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
    checks: list[Any] = [CHECKS.get_one(name) for name in names]
    schema = schemathesis.openapi.from_url(f"{served.address}openapi.json")
    operation = schema[path][method]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def ask_well(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=served.address, checks=checks)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def ask_badly(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=served.address, checks=checks[:1])

    ask_well()
    if path in ("/search", "/documents"):  # Nothing that the others are asked can be wrong.
        ask_badly()
    assert served.get("/healthz").json["status"] == "ok"
