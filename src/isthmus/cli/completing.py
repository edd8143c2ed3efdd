"""What the shell offers after Tab. Nothing here imports torch: a list that takes seconds is no help."""

from collections.abc import Callable, Iterable
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"
KEYS = Path(__file__).with_name("config_keys.txt")  # written by `make docs` from the config classes


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Offer fixed words."""
    return lambda incomplete: _beginning(words, incomplete)


def recipes(incomplete: str) -> list[str]:
    """Offer the recipes."""
    return _beginning(sorted(path.stem for path in RECIPES.glob("*.yaml")), incomplete)


def changes(incomplete: str) -> list[str]:
    """Offer ``KEY=`` for each key of a config, and ``KEY=VALUE`` once a key with known values is there."""
    lines = KEYS.read_text(encoding="utf-8").split()
    if "=" in incomplete:
        return _beginning([line for line in lines if not line.endswith("=")], incomplete)
    return _beginning(dict.fromkeys(f"{line.partition('=')[0]}=" for line in lines), incomplete)


def _beginning(words: Iterable[str], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]
