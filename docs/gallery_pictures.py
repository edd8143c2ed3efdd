"""Pictures of the pages in docs/pages/, made by headless Chromium when the site is built."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Set
from pathlib import Path

PAGES = Path(__file__).with_name("pages")
FOLDER = "gallery"  # where the pictures lie in the site
SIZE = (1200, 900)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
THEMES = {"light": 1, "dark": 0}  # what Chromium calls the theme of the system
PATIENCE = 300  # seconds for one picture; a busy machine is slow


def browser() -> str | None:
    """Chromium, where there is one; ISTHMUS_CHROMIUM names another."""
    return os.environ.get("ISTHMUS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def pictures(kept: Path) -> list[Path]:
    """A picture of every page in light and in dark; none without a browser.

    ``kept``: the folder where pictures of pages that did not change are found again.
    """
    program = browser()
    if program is None:
        return []
    kept.mkdir(exist_ok=True)
    found = []
    for page in sorted(PAGES.glob("*.html")):
        content = hashlib.sha256(page.read_bytes()).hexdigest()[:12]
        for theme, number in THEMES.items():
            folder = kept / content
            folder.mkdir(exist_ok=True)
            target = folder / f"{page.stem}-{theme}.png"
            if not target.exists():
                _take(program, page, number, target)
            found.append(target)
    return found


def _take(program: str, page: Path, theme: int, target: Path) -> None:
    """Write one picture, whole or not at all."""
    width, height = SIZE
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        subprocess.run(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                f"--user-data-dir={folder}/profile",
                f"--blink-settings=preferredColorScheme={theme}",
                f"--window-size={width},{height}",
                f"--screenshot={picture}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        shutil.copy(picture, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)


def with_pictures(markdown: str, files: Set[str]) -> str:
    """The gallery with a picture below each heading that links a page, where there is one.

    ``files``: what lies in the site.
    """

    def added(heading: re.Match[str]) -> str:
        stem, lines = heading["stem"], [heading[0]]
        for theme in THEMES:
            picture = f"{FOLDER}/{stem}-{theme}.png"
            if picture in files:
                image = f"![The top of the page, {theme}]({picture}#only-{theme})"
                lines += ["", f"[{image}](pages/{stem}.html)"]
        return "\n".join(lines)

    link = r"^## \[[^\]]+\]\(pages/(?P<stem>[\w-]+)\.html\)$"
    return re.sub(link, added, markdown, flags=re.MULTILINE)
