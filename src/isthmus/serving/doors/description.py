"""What a server says of itself: the model, and an OpenAPI document made from the types that it reads by."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from isthmus.serving.doors import arrow_stream, scoring_server
from isthmus.serving.doors.open_inference import InferRequest
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


class InvocationFault(msgspec.Struct):
    """Why a request was refused, as MLflow's scoring server says it."""

    error_code: str
    message: str


class Scores(msgspec.Struct):
    """A score a row, in their order, and the checksum of the bundle that gave them."""

    scores: list[float]
    bundle: str


class Predictions(msgspec.Struct):
    """A score a row, in their order."""

    predictions: list[float]


class InferOutput(msgspec.Struct):
    """The scores of a request of version 2."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferAnswer(msgspec.Struct):
    """The answer to a request of version 2."""

    model_name: str
    model_version: str
    outputs: list[InferOutput]
    id: str = ""


_FAULTS = {
    400: "The body is no request.",
    401: "The token is missing or another.",
    403: "The server was started without a token.",
    404: "The version is not the one that is served.",
    413: "The request is beyond a limit.",
    415: "The body is of another media type.",
    422: "A row is not what the schema allows.",
    503: "The request took too long, or the server is not ready.",
}
_JSON, _TEXT, _CSV = "application/json", "text/plain", "text/csv"
_LOOKED = (401, 503)  # faults of a path that only tells something
Schema = dict[str, Any]
Content = dict[str, Schema]


def openapi(settings: ServeSettings, edition: Edition) -> dict[str, Any]:
    """The OpenAPI document: every path that `isthmus.serving.application` has."""
    told = (Scores, Fault, InvocationFault, Predictions, InferRequest, InferAnswer)
    _, schemas = msgspec.json.schema_components(told, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for method, path, operation in _operations(settings.name):
        paths.setdefault(path, {})[method] = operation
        if "/versions/" in path:
            version = {"name": "version", "in": "path", "required": True}
            operation["parameters"] = [version | {"schema": {"type": "string"}}]
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


def _operations(name: str) -> Iterator[tuple[str, str, Schema]]:
    """Method, path and operation of everything that a server answers."""
    any_object: Content = {_JSON: {"type": "object"}}
    arrow: Content = {arrow_stream.MEDIA: {"type": "string", "format": "binary"}}
    bundle: Schema = {"type": "object", "required": ["bundle"], "properties": {"bundle": {}}}
    scored, of_rows = {_JSON: _of("Scores"), **arrow}, {_JSON: _of("ScoreRequest"), **arrow}
    scoring, swap = (400, 401, 413, 415, 422, 503), (401, 403, 503)
    yield "post", "/v1/score", _operation("Score rows", scored, scoring, takes=of_rows)
    yield "get", "/v1/model", _operation("What is served", any_object, _LOOKED)
    summary = "Read the bundle again, in every worker or in none"
    yield "post", "/v1/model/reload", _operation(summary, {_JSON: bundle}, swap)
    yield "get", "/healthz", _operation("Whether the process is alive", any_object, ())
    for path in ("/readyz", "/ping", "/health", "/v2/health/ready"):
        yield "get", path, _operation("Whether requests are taken", any_object, (503,), fault=None)
    text: Content = {_TEXT: {"type": "string"}}
    yield "get", "/metrics", _operation("Counts, for Prometheus", text, _LOOKED)
    yield "get", "/version", _operation("The version of isthmus", text, _LOOKED)
    yield "get", "/openapi.json", _operation("This document", any_object, _LOOKED)

    forms = [{"type": "object", "required": [form]} for form in scoring_server.FORMS]
    frame: Content = {_JSON: {"oneOf": forms}, _CSV: {"type": "string"}}
    faults = (400, 401, 413, 415, 503)
    answer: Content = {_JSON: _of("Predictions")}
    yield (
        "post",
        "/invocations",
        _operation("Score a frame", answer, faults, takes=frame, fault="InvocationFault"),
    )

    yield "get", "/v2", _operation("The server, by version 2", any_object, _LOOKED)
    yield "get", "/v2/health/live", _operation("Whether the process is alive", any_object, ())
    models: Content = {_JSON: {"type": "array", "items": {"type": "object"}}}
    yield "post", "/v2/repository/index", _operation("The models, by version 2", models, _LOOKED)
    load = f"/v2/repository/models/{name}/load"
    yield "post", load, _operation("Read the bundle again", any_object, swap)
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"):
        looked = (*_LOOKED, 404)
        yield "get", path, _operation("Inputs and outputs", any_object, looked)
        ready = _operation("Whether requests are taken", any_object, looked, fault=None)
        yield "get", f"{path}/ready", ready
        asked: Content = {_JSON: _of("InferRequest")}
        given: Content = {_JSON: _of("InferAnswer")}
        infer = _operation("Score rows, an input a column", given, (*faults, 404), takes=asked)
        yield "post", f"{path}/infer", infer


def _operation(
    summary: str,
    gives: Content,
    faults: tuple[int, ...],
    *,
    takes: Content | None = None,
    fault: str | None = "Fault",
) -> Schema:
    """``fault``: the schema of what is answered with the statuses ``faults``; any object for None."""
    refused: Content = {_JSON: {"type": "object"} if fault is None else _of(fault)}
    told: Schema = {
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": _media(gives)},
            **{
                str(status): {"description": _FAULTS[status], "content": _media(refused)}
                for status in sorted(faults)
            },
        },
    }
    if takes is not None:
        told["requestBody"] = {"required": True, "content": _media(takes)}
    return told


def _media(content: Mapping[str, Schema]) -> dict[str, Any]:
    return {media: {"schema": schema} for media, schema in content.items()}


def _of(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
