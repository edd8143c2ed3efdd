"""The application: paths, and what all of them share, token, time limit, counts, and errors.

    POST /v1/score             rows as JSON, or as an Arrow stream
    GET  /v1/model             what is served: columns, domains, metrics, checksum
    POST /v1/model/reload      read the bundle again; the old one stays if anything fails
    /v2/...                    the Open Inference Protocol
    /ping, /version, /invocations        MLflow's scoring server
    /healthz, /readyz, /metrics, /openapi.json

Every answer carries the checksum of the bundle that it is of, in the header ``x-isthmus-bundle``.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isthmus.serving.doors import open_inference, scoring_server
from isthmus.serving.doors.description import described, openapi
from isthmus.serving.doors.refusal import Refusal, check_token, head_of
from isthmus.serving.doors.row_door import RowDoor
from isthmus.serving.edition import CurrentEdition, Edition
from isthmus.serving.settings import ServeSettings
from isthmus.serving.tally import DriftReader, TallyReader
from isthmus.version import VERSION

SCORE = "/v1/score"
BUNDLE_HEADER = b"x-isthmus-bundle"
OPEN = ("/healthz", "/readyz", "/ping", "/health", "/v2/health/live", "/v2/health/ready")


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The text."""
        return msgspec.json.encode(content)


def make_app(
    current: CurrentEdition,
    settings: ServeSettings,
    tallies: Path,
    *,
    reload: Callable[[], Awaitable[str | None]],
    up: Callable[[], bool],
) -> "Guarded":
    """The application.

    ``tallies``: the folder of the counts of all processes. ``reload``: asks for the bundle to be read
    again; gives why it failed, or None. ``up``: whether requests are taken.
    """
    doors = _Doors(current, settings, tallies, reload, up)
    faults: dict[Any, Any] = {Refusal: _refused, HTTPException: _no_such, Exception: _broken}
    return Guarded(
        Starlette(routes=routes_of(doors, settings.name), exception_handlers=faults),
        doors.score,
        current,
        settings,
    )


def routes_of(doors: "_Doors", name: str) -> list[Route]:
    """Every path; ``name``: of the model, in those of the Open Inference Protocol."""
    model = f"/v2/models/{name}"
    versioned = f"{model}/versions/{{version}}"
    routes = [
        Route(SCORE, doors.score, methods=["POST"]),
        Route("/v1/model", doors.model),
        Route("/v1/model/reload", doors.reloaded, methods=["POST"]),
        Route("/healthz", doors.alive),
        Route("/readyz", doors.ready),
        Route("/metrics", doors.metrics),
        Route("/openapi.json", doors.openapi),
        Route("/ping", doors.ready),
        Route("/health", doors.ready),
        Route("/version", doors.version),
        Route("/invocations", doors.invocations, methods=["POST"]),
        Route("/v2", doors.server),
        Route("/v2/health/live", doors.alive),
        Route("/v2/health/ready", doors.ready),
        Route("/v2/repository/index", doors.repository, methods=["POST"]),
        Route(f"/v2/repository/models/{name}/load", doors.loaded, methods=["POST"]),
    ]
    for path in (model, versioned):
        routes += [
            Route(path, doors.metadata),
            Route(f"{path}/ready", doors.model_ready),
            Route(f"{path}/infer", doors.infer, methods=["POST"]),
        ]
    return routes


class _Doors:
    """What each path answers."""

    def __init__(
        self,
        current: CurrentEdition,
        settings: ServeSettings,
        tallies: Path,
        reload: Callable[[], Awaitable[str | None]],
        up: Callable[[], bool],
    ) -> None:
        self._current, self._settings, self._reload, self._up = current, settings, reload, up
        self.score = RowDoor(settings)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(TallyReader(tallies))
        self._registry.register(DriftReader(lambda: current.edition.drift()))
        self._reloading = asyncio.Lock()

    async def model(self, request: Request) -> Response:
        return Json(described(self._settings.name, request.scope["edition"]))

    async def openapi(self, request: Request) -> Response:
        return Json(openapi(self._settings, request.scope["edition"]))

    async def reloaded(self, _: Request) -> Response:
        await self._read_again()
        return Json({"bundle": self._current.edition.engine.checksum})

    async def loaded(self, _: Request) -> Response:
        await self._read_again()
        return Json({})

    async def _read_again(self) -> None:
        if self._settings.token is None:
            raise Refusal(403, "a reload needs a server with a token, got one started without")
        async with self._reloading:
            fault = await self._reload()
        if fault is not None:
            raise Refusal(503, f"the bundle is not swapped: {fault}")

    async def alive(self, _: Request) -> Response:
        return Json({"live": True})

    async def ready(self, _: Request) -> Response:
        up = self._up()
        return Json({"ready": up}, status_code=200 if up else 503)

    async def model_ready(self, request: Request) -> Response:
        _of_version(request)
        return await self.ready(request)

    async def version(self, _: Request) -> Response:
        return Response(VERSION, media_type="text/plain")

    async def metrics(self, _: Request) -> Response:
        self._current.edition.count()
        return Response(
            generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )

    async def invocations(self, request: Request) -> Response:
        return Json(await scoring_server.invoke(request, request.scope["edition"]))

    async def server(self, _: Request) -> Response:
        return Json({"name": "isthmus", "version": VERSION, "extensions": ["model_repository"]})

    async def metadata(self, request: Request) -> Response:
        edition = _of_version(request)
        return Json(open_inference.metadata(self._settings.name, edition))

    async def infer(self, request: Request) -> Response:
        edition = _of_version(request)
        return Json(await open_inference.infer(request, edition, self._settings.name))

    async def repository(self, request: Request) -> Response:
        version = open_inference.version_of(request.scope["edition"].engine.checksum)
        told = {"name": self._settings.name, "version": version, "state": "READY", "reason": ""}
        return Json([told])


def _of_version(request: Request) -> Edition:
    """The edition, if it is of the version that the path asks for."""
    edition: Edition = request.scope["edition"]
    known = open_inference.version_of(edition.engine.checksum)
    asked = request.path_params.get("version", known)
    if asked != known:
        raise Refusal(404, f"the version must be {known}, got {asked!r}")
    return edition


def _fault(path: str, fault: Refusal) -> Response:
    """An error in the dialect of its path."""
    headers = {"www-authenticate": "Bearer"} if fault.status == 401 else None
    if path == "/invocations":
        code = "BAD_REQUEST" if fault.status < 500 else "INTERNAL_ERROR"
        told = {"error_code": code, "message": str(fault)}
        status = 400 if fault.status == 422 else fault.status
        return Json(told, status_code=status, headers=headers)
    status = 400 if fault.status == 422 and path.startswith("/v2") else fault.status
    return Json(fault.content(), status_code=status, headers=headers)


async def _refused(request: Request, fault: Refusal) -> Response:
    return _fault(request.url.path, fault)


async def _no_such(request: Request, fault: HTTPException) -> Response:
    told = {404: "no such path", 405: "no such method here"}.get(fault.status_code, fault.detail)
    found = _fault(request.url.path, Refusal(fault.status_code, told))
    found.headers.update(fault.headers or {})
    return found


async def _broken(request: Request, _: Exception) -> Response:
    return _fault(request.url.path, Refusal(500, "internal error"))


class Guarded:
    """The application behind its guard: every request has one edition from its first byte to its last.

    ``app``: of all paths. ``score``: of requests to `SCORE`, which most requests are.
    """

    def __init__(
        self, app: ASGIApp, score: ASGIApp, current: CurrentEdition, settings: ServeSettings
    ) -> None:
        self._app, self._score, self._current, self._settings = app, score, current, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # no websocket is spoken here, and uvicorn asks for no lifespan
            return
        if _reloads(scope["path"]):
            # This request waits until none is under way in the old edition, so it must not be one.
            await self._answer(scope, receive, send, None)
            return
        with self._current.held() as edition:
            await self._answer(scope, receive, send, edition)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, edition: Edition | None
    ) -> None:
        path = scope["path"]
        scope["edition"], scope["door"] = edition, _DOOR_OF.get(path) or _door(path)
        scope["head"] = head = head_of(scope)
        begun, status = time.perf_counter(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                checksum = (edition or self._current.edition).engine.checksum
                message["headers"] = [*message["headers"], (BUNDLE_HEADER, checksum.encode())]
            await send(message)

        try:
            if path not in OPEN:
                check_token(head, self._settings.token)
            scores = path == SCORE and scope["method"] == "POST"
            async with asyncio.timeout(self._limit(edition)):
                await (self._score if scores else self._app)(scope, receive, tell)
        except Refusal as fault:
            await _fault(path, fault)(scope, receive, tell)
        except TimeoutError:
            await self._last_word(scope, receive, tell, status, 503, "the request took too long")
        except Exception:  # noqa: BLE001  the trace is for the operator, and not for the client
            traceback.print_exc(file=sys.stderr)
            await self._last_word(scope, receive, tell, status, 500, "internal error")
        finally:
            answered = (edition or self._current.edition).answered
            answered(scope["door"], status or 500, time.perf_counter() - begun)

    def _limit(self, edition: Edition | None) -> float | None:
        """Seconds; a reload has its own limits."""
        return None if edition is None else self._settings.time_limit

    async def _last_word(
        self, scope: Scope, receive: Receive, tell: Send, status: int, now: int, text: str
    ) -> None:
        if not status:
            await _fault(scope["path"], Refusal(now, text))(scope, receive, tell)


_DOOR_OF = {SCORE: "score", "/invocations": "invocations"}


def _door(path: str) -> str:
    return "infer" if path.endswith("/infer") else "other"


def _reloads(path: str) -> bool:
    return path == "/v1/model/reload" or path.startswith("/v2/repository/models/")
