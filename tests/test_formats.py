"""Results in other forms: CSV, LaTeX, Markdown, notebooks, figures; from Python and by the command line."""

import csv
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

import isthmus
import small_runs
from command_line import isthmus_in_process, told
from isthmus.cli.progress_view import ProgressView
from isthmus.metrics import TextTable, compare, evaluate_rows
from isthmus.report import to_csv, to_latex
from isthmus.report.fitted import write_run_figures
from isthmus.run import Notice
from run_reports import content, drawn

NAMES = ("home", "a_b & <c>, 50 %", "mail")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    folder = tmp_path_factory.mktemp("formats")
    table = small_runs.write_table(folder)
    settings = small_runs.settings(epochs=1)
    settings["data"]["table"] = str(table)
    return isthmus.fit(settings, out=folder / "run", cache=folder / "cache")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_an_evaluation_has_every_figure_with_all_its_digits():
    evaluation = evaluate_rows(drawn(NAMES, 600))
    lines = read(to_csv(evaluation))
    assert [line["domain"] for line in lines[:3]] == list(NAMES)
    assert [line["scope"] for line in lines] == [
        *["domain"] * 3,
        *("pooled", "macro", "weighted", "worst"),
    ]
    home = evaluation.domains["home"]
    assert float(lines[0]["auc"]) == home.auc
    assert (float(lines[0]["auc_ci_low"]), float(lines[0]["auc_ci_high"])) == home.auc_ci
    assert int(lines[0]["rows"]) == home.rows
    assert lines[2]["auc"] == lines[2]["auc_ci_low"] == ""  # one class
    assert lines[2]["auc_reason"] == "one class: no positives"
    assert float(lines[3]["logloss"]) == evaluation.pooled.logloss
    assert lines[6]["domain"] == evaluation.worst.domain


def test_csv_of_a_comparison_and_of_a_table():
    rows = drawn(NAMES, 600)
    found = compare(rows, rows)
    lines = read(to_csv(found))
    assert float(lines[0]["auc_difference"]) == 0.0
    assert {"auc_a", "auc_ci_low", "auc_ci_high", "auc_p_holm", "logloss_b"} <= lines[0].keys()
    table = TextTable("title", ("a", "b"), (("x, y", '"1"'),))
    assert to_csv(table) == 'a,b\n"x, y","""1"""'


def test_latex_escapes_what_latex_would_read():
    text = to_latex(evaluate_rows(drawn(NAMES, 600)))
    assert r"a\_b \& \textless{}c\textgreater{}, 50 \% &" in text
    assert text.count(r"\midrule") == 2
    assert r"\begin{tabular}{lrrrrrrr}" in text
    assert "–" not in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 7
    assert all(line.replace(r"\&", "").count("&") == 7 for line in lines)
    assert (
        to_latex(TextTable("a\\b{c}$d^e~f#g", ("x",), (("1 ± 2",),))).count(
            r"\caption{a\textbackslash{}b\{c\}\$d\textasciicircum{}e\textasciitilde{}f\#g}"
        )
        == 1
    )


def test_evaluate_prints_each_form_and_refuses_others(run: isthmus.Run):
    said = {
        form: isthmus_in_process("evaluate", run.path, "--format", form)
        for form in ("csv", "latex", "markdown", "json")
    }
    assert all(result.exit_code == 0 for result in said.values())
    assert said["csv"].stdout == to_csv(run.evaluate()) + "\n"
    assert said["latex"].stdout == to_latex(run.evaluate()) + "\n"
    assert said["markdown"].stdout.startswith("**run: test split")
    assert json.loads(said["json"].stdout) == json.loads(json.dumps(run.evaluate().to_dict()))
    refused = isthmus_in_process("evaluate", run.path, "--format", "xml")
    assert told(refused) == "--format must be csv, latex, markdown or json, got 'xml'"
    both = isthmus_in_process("evaluate", run.path, "--format", "csv", "--json", "-")
    assert told(both) == "--format must stand without --json -, got 'csv'"
    compared = isthmus_in_process("compare", run.path, run.path, "--format", "csv")
    assert [line["scope"] for line in read(compared.stdout)][-4:] == [
        "pooled",
        "macro",
        "weighted",
        "worst",
    ]


def test_evaluate_writes_page_and_figures(run: isthmus.Run, tmp_path: Path):
    (run.path / "report.html").unlink()
    done = isthmus_in_process("evaluate", run.path, "--page", "--figures", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    assert (run.path / "report.html").exists()
    lines = [line for line in done.stdout.splitlines() if line.startswith("wrote ")]
    assert lines[0] == f"wrote {run.path / 'report.html'}"
    assert {Path(line[6:]).name for line in lines[1:]} == {
        f"{name}.{kind}"
        for name in (
            *("curves", "curves-by-domain", "reliability", "reliability-by-domain"),
            *("scores", "scores-by-domain", "reads"),
        )
        for kind in ("png", "svg")
    }


def test_figures_are_pictures_without_a_stylesheet_and_always_the_same(tmp_path: Path):
    report = content()
    first = write_run_figures(report, tmp_path / "one")
    second = write_run_figures(report, tmp_path / "two")
    for path, again in zip(first, second, strict=True):
        if path.suffix == ".png":
            assert path.read_bytes()[:4] == b"\x89PNG"
            continue
        assert path.read_bytes() == again.read_bytes()
        drawing = ElementTree.parse(path).getroot()
        assert not [one for one in drawing.iter() if one.get("class") or one.get("style")]
    nothing = content(looks=[], importance=None, missing={})
    names = {path.stem for path in write_run_figures(nothing, tmp_path / "three")}
    assert "curves" not in names
    assert "reads" not in names


def test_figures_need_a_library_and_say_so(
    run: isthmus.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused = isthmus_in_process("evaluate", run.path, "--figures", tmp_path / "figures")
    assert "pip install 'isthmus[plots]'" in told(refused)


class Cells(HTMLParser):
    """Texts of the cells of a table, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.cells += [""] if tag in ("td", "th") else []

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_a_notebook_shows_results_as_static_tables_with_escaped_names(run: isthmus.Run):
    evaluation = evaluate_rows(drawn(NAMES, 600))
    html = evaluation._repr_html_()
    cells = Cells(html)
    assert "a_b & <c>, 50 %" in cells.cells
    assert set(cells.tags) <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert "class=" not in html
    assert "<c>" not in html
    table = evaluation.table()
    assert len([tag for tag in cells.tags if tag == "tr"]) == len(table.rows) + 1
    assert "home" in Cells(compare(drawn(NAMES, 600), drawn(NAMES, 600))._repr_html_()).cells
    assert "search" in Cells(run._repr_html_()).cells
    assert str(run.path) in run._repr_html_()


def test_a_notebook_has_one_place_with_a_bar_for_each_stage(monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []

    class Handle:
        def update(self, content: str) -> None:
            shown[-1] = content

    def display(content: str, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(content)
        return Handle()

    library = ModuleType("IPython.display")
    library.HTML, library.display = str, display  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", library)
    with ProgressView(Console(force_jupyter=True)) as progress:
        progress(Notice("train", "a <look>"))
        progress(Notice("train", "step 1 & more", 0.25))
        progress(Notice("score", "rows", 1.0))
        progress(Notice("train", "step 2", 0.5))
    (html,) = shown
    assert "a &lt;look&gt;" in html
    assert html.count("<progress") == 2
    assert 'value="0.5000"' in html
    assert "train 50% step 2" in html
