"""What a long call does, shown on stderr."""

from typing import Any

from isthmus.printable import printable

PLAIN_STEP = 0.1  # share of a stage between two plain lines


class ProgressView:
    """Shows on stderr what a long call does: as a bar on a terminal, else as plain lines."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        self.shown: dict[str, float] = {}

    def __enter__(self) -> "ProgressView":
        if self.console.is_terminal:
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
        if notice.done is None:
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
