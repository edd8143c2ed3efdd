"""What the shell offers after Tab, asked for as the shell asks."""

import os
import subprocess
import sys

from command_line import ISTHMUS, SRC
from isthmus.cli.completing import changes, recipes


def offered(words: str) -> list[str]:
    """What bash is told for a line; no torch is imported for it."""
    environment = os.environ | {
        "_ISTHMUS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "PYTHONPATH": os.pathsep.join([str(SRC), *filter(None, sys.path)]),
    }
    done = subprocess.run(ISTHMUS, capture_output=True, text=True, env=environment)
    return done.stdout.split()


def test_commands_and_recipes_are_offered():
    assert offered("isthmus fi") == ["fit"]
    assert offered("isthmus fit c.yaml --recipe mam") == ["mamdr"]


def test_the_script_for_the_shell_is_shown():
    done = subprocess.run(
        [*ISTHMUS, "--show-completion", "bash"],
        capture_output=True,
        text=True,
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert "_ISTHMUS_COMPLETE=complete_bash" in done.stdout


def test_keys_and_values_are_offered():
    assert changes("train.epo") == ["train.epochs="]
    assert changes("model.backbone.name=st") == ["model.backbone.name=star"]
    assert changes("train.compile=") == ["train.compile=false", "train.compile=true"]
    assert {"mamdr", "tal"} <= set(recipes(""))
    assert recipes("none of them") == []
