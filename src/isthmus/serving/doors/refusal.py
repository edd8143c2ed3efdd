"""What a request is refused with, and how its body is read within limits."""

import hmac
import re

from starlette.requests import ClientDisconnect, Request

from isthmus.errors import SchemaError

_PLACE = re.compile(r"column '((?:[^'\\]|\\.)*)' .* row (\d+)", re.DOTALL)


class Refusal(Exception):
    """A request that is not answered. ``status``: of HTTP. ``column``, ``row``: where the fault is."""

    def __init__(
        self, status: int, text: str, *, column: str | None = None, row: int | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.column, self.row = status, column, row

    @classmethod
    def of_schema(cls, fault: SchemaError) -> "Refusal":
        """A row that the schema does not allow: 422, with the column and the row that the fault names."""
        text = str(fault)
        found = _PLACE.search(text)
        if found is None:
            return cls(422, text)
        return cls(422, text, column=found[1], row=int(found[2]))

    def content(self) -> dict[str, str | int]:
        """What the answer holds."""
        told: dict[str, str | int] = {"error": str(self)}
        if self.column is not None:
            told["column"] = self.column
        if self.row is not None:
            told["row"] = self.row
        return told


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request. Raises `Refusal` where it is longer than ``most`` bytes, or packed."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "a body must come as it is, got a content-encoding")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise Refusal(413, f"a body must have at most {most:,} bytes, got {int(told):,}")
    parts, length = [], 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > most:
                raise Refusal(413, f"a body must have at most {most:,} bytes, got more")
            parts.append(part)
    except ClientDisconnect:
        raise Refusal(400, "a body must come to its end, got a closed connection") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def media_type(request: Request) -> str:
    """The media type of the body, without its parameters; empty where none is told."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_token(request: Request, token: str | None) -> None:
    """Raise `Refusal` where a token is asked for and the request has another or none."""
    if token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared in constant time, so that no answer's delay tells how much of it was right.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise Refusal(401, "a request must carry the token, as Authorization: Bearer TOKEN")
