"""``POST /v1/score``: rows in, scores out. An ASGI application of its own.

No routing and no object of a framework stands between a request and its rows: for one row they would cost
more than the score does.
"""

from typing import Any

import msgspec
import numpy as np
from starlette.types import Receive, Scope, Send

from isthmus.data.encoding.encoder import EncodedRows
from isthmus.errors import SchemaError
from isthmus.serving.doors import arrow_stream
from isthmus.serving.doors.refusal import Head, Refusal, media_type, read_body, told_in
from isthmus.serving.edition import Edition, check_scores
from isthmus.serving.settings import ServeSettings

JSON = "application/json"


class RowDoor:
    """Answers rows as JSON or as an Arrow stream. The scope has ``head`` and ``edition`` by then.

    Raises `Refusal`.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        head: Head = scope["head"]
        edition: Edition = scope["edition"]
        media = media_type(head)
        if media == arrow_stream.MEDIA:
            scope["door"] = "arrow"
            body, media = await self._arrow(head, receive, edition)
        elif media in (JSON, ""):
            body, media = await self._json(head, receive, edition), JSON
        else:
            raise Refusal(415, f"a body must be {JSON} or {arrow_stream.MEDIA}, got {media}")
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", media.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _json(self, head: Head, receive: Receive, edition: Edition) -> bytes:
        body = await read_body(head, receive, self._settings.max_bytes)
        columns, rows, given = edition.reader.read(body)
        name = given or told_in(head, b"x-request-id")
        scores = await edition.score_columns("score", columns, rows, name, typed=True)
        return _as_json(scores, edition)

    async def _arrow(self, head: Head, receive: Receive, edition: Edition) -> tuple[bytes, str]:
        settings = self._settings
        body = await read_body(head, receive, settings.max_bytes)

        def work() -> tuple[EncodedRows, np.ndarray, list[list[Any]] | None]:
            table = arrow_stream.read_stream(
                body,
                max_rows=settings.max_rows,
                max_bytes=settings.max_bytes,
                max_items=settings.max_items,
            )
            try:
                rows = edition.engine.encoded(table, "the request")
            except SchemaError as fault:
                raise Refusal.of_schema(fault) from None
            scores = edition.engine.score(rows)
            check_scores(scores)
            if not settings.log_values:
                return rows, scores, None
            return (
                rows,
                scores,
                [table[name].to_pylist() for name in edition.engine.encoder.columns],
            )

        rows, scores, columns = await edition.aside(work)
        # A row without a domain has the code -1, which is the last of these.
        names = [*rows.domain_names.to_pylist(), None]
        told = [names[code] for code in rows.domain_codes]
        edition.note("arrow", rows, scores, told_in(head, b"x-request-id"), told, columns)
        if JSON in (told_in(head, b"accept") or ""):
            return _as_json(scores, edition), JSON
        return arrow_stream.write_scores(scores), arrow_stream.MEDIA


def _as_json(scores: np.ndarray, edition: Edition) -> bytes:
    return msgspec.json.encode({"scores": scores.tolist(), "bundle": edition.engine.checksum})
