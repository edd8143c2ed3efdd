"""The command line: each command parses, calls one function of the package, and prints.

Torch is imported inside the commands, so that ``isthmus --help`` answers at once.
"""

from isthmus.cli import commands, installation, recipe_commands, shipping, studies, watching
from isthmus.cli.app import app
from isthmus.cli.progress_view import ProgressView

__all__ = [
    "ProgressView",
    "app",
    "commands",
    "installation",
    "recipe_commands",
    "shipping",
    "studies",
    "watching",
]
