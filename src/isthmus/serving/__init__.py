"""Serving: a bundle behind HTTP, in three dialects, swapped without a dropped request.

Nothing is imported here: the server needs libraries of the extra ``serve``, which
`isthmus.serving.settings.check_serving_installed` asks for by name before `isthmus.serving.supervisor`
is imported.
"""
