"""What a person sees of a run: a live line on a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pipeline import FetchStatistics

_PLAIN_SECONDS = 10.0


class ProgressLine:
    """Step, losses, speed and time left. Use it as a context; a quiet one prints nothing."""

    def __init__(self, steps: int, *, first_step: int, quiet: bool = False) -> None:
        self._steps = steps
        self._first_step = first_step
        self._quiet = quiet
        self._console = Console()
        self._live: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._live = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                console=self._console,
            )
            self._task = self._live.add_task("", total=steps, completed=first_step, status="")
        self._losses: dict[str, float] = {}
        self._speed = 0.0
        self._fetching = ""
        self._started = self._printed = time.perf_counter()

    def note(self, name: str, loss: float | None) -> None:
        """Show `loss` under `name` from now on."""
        if loss is not None:
            self._losses[name] = loss

    def note_speed(self, tokens_per_second: float) -> None:
        """Show this speed from now on."""
        self._speed = tokens_per_second

    def note_fetching(self, statistics: FetchStatistics) -> None:
        """Show from now on what reading from object storage costs; nothing for a local corpus."""
        if statistics.blocks_needed:
            self._fetching = (
                f"{statistics.bytes_fetched / 2**20:,.0f} MiB fetched, {statistics.hit_rate:.0%} hits, "
                f"{statistics.wait_seconds:.1f} s waited"
            )

    def say(self, line: str) -> None:
        """Print a line of its own."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(self._task, completed=step, status=self._status(step))
            return
        now = time.perf_counter()
        if now - self._printed >= _PLAIN_SECONDS or step == self._steps:
            self._printed = now
            print(f"step {step:,}/{self._steps:,} · {self._status(step)}", flush=True)

    def _status(self, step: int) -> str:
        parts = [f"{name} {loss:.3f}" for name, loss in self._losses.items()]
        if self._speed:
            parts.append(f"{self._speed:,.0f} tokens/s")
        if self._fetching:
            parts.append(self._fetching)
        done = step - self._first_step
        left = (time.perf_counter() - self._started) / max(done, 1) * (self._steps - step)
        parts.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
        return " · ".join(parts)

    def __enter__(self) -> ProgressLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
