"""What a long call does, shown on stderr, or below the cell of a notebook."""

from html import escape as escape_html
from importlib import import_module
from typing import Any

from isthmus.printable import printable

PLAIN_STEP = 0.1  # share of a stage between two plain lines
LINES = 12  # that a notebook shows


class ProgressView:
    """Shows what a long call does: as bars on a terminal and in a notebook, else as plain lines.

    >>> with isthmus.ProgressView() as progress:            # doctest: +SKIP
    ...     run = isthmus.fit("config.yaml", progress=progress)

    A notebook needs no widgets. ``console``: of rich, where to show it; stderr by default.
    """

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        self.console = Console(stderr=True) if console is None else console
        self.bar: Any = None
        self.cell: _Cell | None = None
        self.tasks: dict[str, Any] = {}
        self.shown: dict[str, float] = {}

    def __enter__(self) -> "ProgressView":
        if self.console.is_jupyter:
            self.cell = _Cell()
        elif self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.fields[stage]:>9}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f} %  {task.description}"),
                TimeElapsedColumn(),
                console=self.console,
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, notice: Any) -> None:
        """Show one notice: a message, or how much of a stage is done."""
        if self.cell is not None:
            self.cell.show(notice)
        elif notice.done is None:
            self._line(notice)
        elif self.bar is not None:
            self._move_bar(notice)
        elif notice.done >= 1 or notice.done >= self.shown.get(notice.stage, -1) + PLAIN_STEP:
            self.shown[notice.stage] = notice.done if notice.done < 1 else -1
            self._line(notice)

    def _line(self, notice: Any) -> None:
        from rich.text import Text

        self.console.print(Text(printable(str(notice), keep="\n")), soft_wrap=True)

    def _move_bar(self, notice: Any) -> None:
        from rich.markup import escape

        if notice.stage not in self.tasks:
            self.tasks[notice.stage] = self.bar.add_task("", total=1.0, stage=notice.stage)
        task = self.tasks[notice.stage]
        self.bar.update(task, completed=notice.done, description=escape(printable(notice.text)))
        if notice.done >= 1:
            self.bar.stop_task(self.tasks.pop(notice.stage))


class _Cell:
    """The output of a notebook's cell: a bar for each stage under way, above it the last lines told.

    The bar is HTML that is shown again and again in one place, so that no extension is needed.
    """

    def __init__(self) -> None:
        self.shown = import_module("IPython.display")
        self.lines: list[str] = []
        self.stages: dict[str, tuple[float, str]] = {}
        self.handle: Any = None

    def show(self, notice: Any) -> None:
        """Show one more notice."""
        if notice.done is None:
            self.lines = [*self.lines, printable(str(notice), keep="\n")][-LINES:]
        else:
            self.stages[notice.stage] = (notice.done, printable(notice.text))
        content = self.shown.HTML(self._html())
        if self.handle is None:
            self.handle = self.shown.display(content, display_id=True)
        else:
            self.handle.update(content)

    def _html(self) -> str:
        bars = (
            f'<div><progress value="{done:.4f}" max="1" aria-label="{stage}"></progress>'
            f" {stage} {done:.0%} {escape_html(text)}</div>"
            for stage, (done, text) in self.stages.items()
        )
        lines = escape_html("\n".join(self.lines))
        return f'<pre style="margin:0">{lines}</pre>{"".join(bars)}'
