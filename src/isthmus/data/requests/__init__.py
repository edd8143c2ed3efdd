"""Single rows and small requests: values of Python turned into ids and numbers without a frame."""

from isthmus.data.requests.row_encoder import EncodedRequest, RowEncoder

__all__ = ["EncodedRequest", "RowEncoder"]
