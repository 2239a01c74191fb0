"""The OpenAPI document, from the types that requests are read into and answers written from."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from clrelkt.server.answers import DocumentList, DocumentText, Failure, Health, SearchResult
from clrelkt.server.requests import DocumentsRequest, SearchRequest
from clrelkt.server.settings import ServerSettings

__all__ = ["describe"]

_TYPES = (
    SearchRequest,
    DocumentsRequest,
    SearchResult,
    DocumentList,
    DocumentText,
    Health,
    Failure,
)
_REFUSALS = {
    "400": "Bytes that are no UTF-8 or no JSON.",
    "404": "No such document.",
    "413": "A body that is too long.",
    "414": "An address that is too long.",
    "415": "A body that does not say that it is JSON.",
    "421": "A host name that this server does not go by.",
    "422": "A value that cannot be; the message says which and why.",
    "429": "Too many requests of one address at once.",
    "503": "Too many requests wait, or the server is stopping.",
}
_ALWAYS = ("414", "421", "429")


def describe(app: FastAPI, settings: ServerSettings) -> dict[str, Any]:
    """Return the document."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    search = schemas["SearchRequest"]["properties"]
    search["question"] |= {"maxLength": settings.max_question, "pattern": r"\S"}
    search["k"]["maximum"] = settings.max_hits
    schemas["DocumentsRequest"]["properties"]["count"]["maximum"] = settings.max_hits
    schemas["DocumentsRequest"]["properties"]["first"]["maximum"] = 2**53
    return {
        "openapi": "3.1.0",
        "info": {
            "title": app.title,
            "version": app.version,
            "description": "Search documents by a question in any language.",
        },
        "paths": _paths(schemas),
        "components": {"schemas": schemas},
    }


def _paths(schemas: dict[str, Any]) -> dict[str, Any]:
    found = _answer("SearchResult")
    return {
        "/search": {
            "get": {
                "operationId": "search",
                "summary": "Search by a question in the address.",
                "parameters": _parameters(schemas["SearchRequest"]),
                "responses": found | _refusals("400", "422", "503"),
            },
            "post": {
                "operationId": "search_by_body",
                "summary": "Search by a question in the body.",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _reference("SearchRequest")}},
                },
                "responses": found | _refusals("400", "413", "415", "422", "503"),
            },
        },
        "/documents": {
            "get": {
                "operationId": "documents",
                "summary": "List documents in the order of the index.",
                "parameters": _parameters(schemas["DocumentsRequest"]),
                "responses": _answer("DocumentList") | _refusals("400", "422"),
            }
        },
        "/documents/{id}": {
            "get": {
                "operationId": "document",
                "summary": "One document with its text.",
                "parameters": [
                    {
                        "name": "id",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "minLength": 1},
                    }
                ],
                "responses": _answer("DocumentText") | _refusals("404"),
            }
        },
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "How the server is, and what it serves.",
                "responses": _answer("Health") | _refusals("503"),
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Counts and times, for Prometheus.",
                "responses": {
                    "200": {
                        "description": "Prometheus's text format.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                }
                | _refusals(),
            }
        },
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(name: str) -> dict[str, Any]:
    return {
        "200": {
            "description": name,
            "content": {"application/json": {"schema": _reference(name)}},
        }
    }


def _refusals(*statuses: str) -> dict[str, Any]:
    return {
        status: {
            "description": _REFUSALS[status],
            "content": {"application/json": {"schema": _reference("Failure")}},
        }
        for status in sorted({*statuses, *_ALWAYS})
    }


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": described.get("description", ""),
            "schema": _in_query(name, described),
        }
        for name, described in schema["properties"].items()
    ]


def _in_query(name: str, described: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value as a query holds it: no null, and no object."""
    if name == "where":
        return {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:"}, "maxItems": 16}
    kinds = [kind for kind in described.get("anyOf", ()) if kind.get("type") != "null"]
    plain = kinds[0] if kinds else described
    return {key: value for key, value in plain.items() if key not in ("description", "default")}
