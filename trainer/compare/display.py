"""How a comparison shows itself while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainer.compare.compare import LOG_FILE, CellRun, State

_STYLES = {
    State.WAITING: "dim",
    State.ELSEWHERE: "yellow",
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.SKIPPED: "green dim",
    State.FAILED: "bold red",
    State.STOPPED: "yellow",
}


class LiveDisplay:
    """A table of the runs that changes in place. Use it as a context."""

    def __init__(self, console: Console, *, parallel: int) -> None:
        self._console = console
        self._parallel = parallel
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")
        self._note = ""

    def changed(self, run: CellRun) -> None:
        """The next refresh shows it."""

    def refresh(self, runs: Sequence[CellRun]) -> None:
        """Draw the table again."""
        shown = runs
        if len(runs) > max(self._console.height - 7, 5):
            news = (State.RUNNING, State.ELSEWHERE, State.FAILED)
            shown = [run for run in runs if run.state in news]
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("run", "state", "step", "", "target loss", "generic", "time"):
            table.add_column(title, justify="left" if title in ("run", "state", "") else "right")
        for run in shown:
            table.add_row(*_cells(run))
        outlook = self._note or _time_left(runs, self._parallel)
        summary = Text(summarize(runs) + outlook, "bold")
        self._live.update(Group(table, summary), refresh=True)

    def stopping(self) -> None:
        """Say so below the table."""
        self._note = " · stopping: runs are saving (Ctrl-C again ends them at once)"

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()


class PlainDisplay:
    """One line whenever a run begins or ends: for logs and pipes."""

    def __init__(self, console: Console, *, total: int) -> None:
        self._console = console
        self._total = total
        self._ended = 0

    def changed(self, run: CellRun) -> None:
        """Print the new state."""
        name = run.job.cell.name
        if run.state is State.RUNNING:
            self._print(f"{name}: running, output in {run.job.folder / LOG_FILE}")
            return
        if run.state is State.ELSEWHERE:
            self._print(f"{name}: another process trains it, which is waited for")
            return
        self._ended += 1
        losses = [f"{target} {loss:.3f}" for target, loss in _losses(run)]
        details = " · ".join([f"{run.seconds:.0f} s", *losses])
        self._print(f"{name}: {run.state.value} ({details}) [{self._ended}/{self._total}]")

    def refresh(self, runs: Sequence[CellRun]) -> None:
        """Time alone is no news."""

    def stopping(self) -> None:
        """Print it."""
        self._print("stopping: runs are saving")

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def make_display(
    console: Console, runs: Sequence[CellRun], *, parallel: int
) -> LiveDisplay | PlainDisplay:
    """The display that fits the console."""
    if console.is_terminal:
        return LiveDisplay(console, parallel=parallel)
    return PlainDisplay(console, total=sum(run.state is State.WAITING for run in runs))


def summarize(runs: Sequence[CellRun]) -> str:
    """`3 done · 1 failed · 2 waiting`."""
    counts = Counter(run.state for run in runs)
    return " · ".join(f"{counts[state]} {state.value}" for state in State if counts[state])


def _cells(run: CellRun) -> list[Text | ProgressBar]:
    steps = run.job.config.steps
    step = steps if run.state in (State.DONE, State.SKIPPED) else run.metrics.step
    losses = ", ".join(f"{loss:.3f}" for _, loss in _losses(run))
    generic = run.metrics.generic_loss
    return [
        Text(run.job.cell.name),
        Text(run.state.value, _STYLES[run.state]),
        Text(f"{step:,}/{steps:,}" if step else ""),
        ProgressBar(total=steps, completed=step, width=16),
        Text(losses),
        Text("" if generic is None else f"{generic:.3f}"),
        Text(duration(run.seconds) if run.seconds else ""),
    ]


def _losses(run: CellRun) -> list[tuple[str, float]]:
    return [(name, loss) for name, loss in run.metrics.target_loss.items() if loss is not None]


def _time_left(runs: Sequence[CellRun], parallel: int) -> str:
    """From the speed of the runs so far; nothing until one of them has got anywhere."""
    moved = [run for run in runs if run.seconds and run.metrics.step > run.first_step]
    steps = sum(run.metrics.step - run.first_step for run in moved)
    still_open = (State.WAITING, State.ELSEWHERE, State.RUNNING)
    open_runs = [run for run in runs if run.state in still_open]
    if not steps or not open_runs:
        return ""
    left = sum(max(0, run.job.config.steps - run.metrics.step) for run in open_runs)
    seconds = left * sum(run.seconds for run in moved) / steps / min(parallel, len(open_runs))
    return f" · about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """`2:05` or `1:02:05`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
