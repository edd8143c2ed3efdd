"""What a server says of itself: the model, and an OpenAPI document made from the types that it reads by."""

from typing import Any

import msgspec

from isthmus.serving.doors import arrow_stream
from isthmus.serving.edition import Edition
from isthmus.serving.settings import ServeSettings
from isthmus.version import VERSION


def described(name: str, edition: Edition) -> dict[str, Any]:
    """What ``GET /v1/model`` tells."""
    bundle = edition.engine.bundle
    encoder = edition.engine.encoder
    features = bundle.config.data.features
    return {
        "name": name,
        "bundle": edition.engine.checksum,
        "isthmus": VERSION,
        "backend": "torch" if edition.order.graphs is None else "onnx",
        "columns": [
            {"name": column, "kind": features[column].kind if column in features else "domain"}
            for column in encoder.columns
        ],
        "domain": bundle.config.data.domain,
        "domains": list(bundle.domains),
        "model": bundle.config.model.model_dump(mode="json", exclude_defaults=True),
        "calibrated": bundle.calibration is not None,
        # On the validation rows of the fit: AUC and calibration of each domain, with standard errors.
        "validation": None if bundle.profile is None else bundle.profile.baseline(),
        "drift": [
            {"domain": one.domain, "what": one.what, "seen": one.seen, "interval": one.interval}
            for one in edition.drift()
        ],
    }


class Fault(msgspec.Struct):
    """Why a request was refused, and where the fault is."""

    error: str
    column: str | None = None
    row: int | None = None


class Scores(msgspec.Struct):
    """A score a row, in their order, and the checksum of the bundle that gave them."""

    scores: list[float]
    bundle: str


_FAULTS = {
    "400": "The body is no request.",
    "401": "The token is missing or another.",
    "413": "The request is beyond a limit.",
    "415": "The body is of another media type.",
    "422": "A row is not what the schema allows.",
    "503": "The request took too long, or the server is not ready.",
}
_TOLD = {
    "/v1/model": "What is served",
    "/healthz": "Whether the process is alive",
    "/readyz": "Whether requests are taken",
}


def openapi(settings: ServeSettings, edition: Edition) -> dict[str, Any]:
    """The OpenAPI document of the own door. The other two dialects have documents of their own."""
    place = "#/components/schemas/{name}"
    _, schemas = msgspec.json.schema_components((Scores, Fault), ref_template=place)
    faults = {status: _answer(text, "Fault") for status, text in _FAULTS.items()}
    arrow = {arrow_stream.MEDIA: {"schema": {"type": "string", "format": "binary"}}}
    scored = _answer("The scores.", "Scores")
    scored["content"] |= arrow
    paths: dict[str, Any] = {
        "/v1/score": {
            "post": {
                "summary": "Score rows",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _of("ScoreRequest")}, **arrow},
                },
                "responses": {"200": scored, **faults},
            }
        }
    }
    for path, text in _TOLD.items():
        told = {
            "description": text,
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
        paths[path] = {
            "get": {
                "summary": text,
                "responses": {"200": told, "401": faults["401"], "503": faults["503"]},
            }
        }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": settings.name, "version": edition.engine.checksum},
        "paths": paths,
        "components": {"schemas": {**schemas, **edition.reader.schemas()}},
    }
    if settings.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _of(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(text: str, name: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _of(name)}}}
