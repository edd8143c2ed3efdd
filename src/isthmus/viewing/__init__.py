"""All runs under a folder as one table in a browser, read-only and live while a fit runs.

Only the standard library serves here: a newcomer needs no extra. The server is small because it has
little to do: it reads JSON, and hands out pages that it found itself.
"""

from isthmus.viewing.view_server import view

__all__ = ["view"]
