"""What a request is refused with, and how its body is read within limits."""

import hmac
import re
from collections.abc import Mapping

from starlette.types import Receive, Scope

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


Head = Mapping[bytes, bytes]  # the headers of a request by name, which is in small letters


def head_of(scope: Scope) -> Head:
    """The headers of a request; of one that stands twice, the first."""
    return dict(reversed(scope["headers"]))


def told_in(head: Head, name: bytes) -> str | None:
    """The text of a header; None where there is none."""
    found = head.get(name)
    return None if found is None else found.decode("latin-1")


async def read_body(head: Head, receive: Receive, most: int) -> bytes:
    """The body of a request. Raises `Refusal` where it is longer than ``most`` bytes, or packed."""
    if head.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "a body must come as it is, got a content-encoding")
    told = told_in(head, b"content-length") or ""
    if told.isdecimal() and int(told) > most:
        raise Refusal(413, f"a body must have at most {most:,} bytes, got {int(told):,}")
    parts, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(400, "a body must come to its end, got a closed connection")
        part, more = message.get("body", b""), message.get("more_body", False)
        length += len(part)
        if length > most:
            raise Refusal(413, f"a body must have at most {most:,} bytes, got more")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def media_type(head: Head) -> str:
    """The media type of the body, without its parameters; empty where none is told."""
    return (told_in(head, b"content-type") or "").partition(";")[0].strip().lower()


def check_token(head: Head, token: str | None) -> None:
    """Raise `Refusal` where a token is asked for and the request has another or none."""
    if token is None:
        return
    scheme, _, given = (told_in(head, b"authorization") or "").partition(" ")
    # Compared in constant time, so that no answer's delay tells how much of it was right.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise Refusal(401, "a request must carry the token, as Authorization: Bearer TOKEN")
