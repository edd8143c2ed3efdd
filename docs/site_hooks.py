"""What the site has beside the pages of docs/: the reference of names, the project's pages, pictures of the gallery.

MkDocs calls the functions below by their names (`hooks` in mkdocs.yml).
"""
# pyright: reportMissingImports=false

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import gallery_pictures  # noqa: E402
import reference_pages  # noqa: E402
from foreign_requests import foreign_request  # noqa: E402

NAMES = "Public names"  # the entry of the navigation that is filled here
# Pages that lie outside of docs/, where a host of code wants them.
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_config(config: MkDocsConfig) -> None:
    """Refuse names without a docstring, and give the reference its place in the navigation."""
    if missing := reference_pages.undocumented():
        raise PluginError(f"a public name must have a docstring, got none of {', '.join(missing)}")
    pages = [{name: reference_pages.address(name)} for name in reference_pages.packages()]
    for entry in config.nav or []:
        for child in entry.get("Reference", ()):
            if NAMES in child:
                child[NAMES] = pages
    for path in (*reference_pages.SOURCE.rglob("*.py"), *map(ROOT.joinpath, OUTSIDE)):
        config.watch.append(str(path))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and the pictures."""
    for name in reference_pages.packages():
        made = reference_pages.page(name)
        files.append(File.generated(config, reference_pages.address(name), content=made))
    for outside, inside in OUTSIDE.items():
        text = (ROOT / outside).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, inside, content=text))
    for picture in gallery_pictures.pictures(ROOT / ".site-pictures"):
        where = f"{gallery_pictures.FOLDER}/{picture.name}"
        files.append(File.generated(config, where, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to pages outside of docs/ to their places in the site; put pictures into the gallery."""
    del config
    for outside, inside in OUTSIDE.items():
        markdown = markdown.replace(f"](../{outside}", f"]({inside}")
    markdown = markdown.replace("](../README.md", "](index.md")
    if page.file.src_uri == "gallery.md":
        markdown = gallery_pictures.with_pictures(markdown, {one.src_uri for one in files})
    return markdown


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would ask a foreign host for anything."""
    del config
    if found := foreign_request(output):
        raise PluginError(f"a page must ask no foreign host, got {found} in {page.file.src_uri}")
    return output
