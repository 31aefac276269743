"""The tables of the local-disk benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers import PEERS
from benchmarks.results import Results
from benchmarks.table import machine_line, table

QUANTITIES = {
    "samples_per_second": ("Samples per second", "{:,.0f}"),
    "first_batch_seconds": ("Seconds to the first batch, imports left out", "{:.3f}"),
    "memory_mb": ("Peak memory in MB above the import of torch", "{:,.0f}"),
}
OURS, LIMIT = "braidstream", "gather"


def print_tables(
    results: Results, domains: Sequence[int], loaders: Sequence[str], workers: Sequence[int]
) -> None:
    """One table per quantity and number of workers, and one for changes of the mixture."""
    print(machine_line(), "Medians over the rounds.\n")
    for quantity, (title, style) in QUANTITIES.items():
        for count in workers:
            print(f"{title}, {processes(count)}\n")
            print(quantity_table(results, domains, loaders, count, quantity, style))
    if OURS in loaders:
        print("A change of mixture (peers cannot change theirs without starting anew)\n")
        print(steering_table(results, domains, workers))


def quantity_table(
    results: Results,
    domains: Sequence[int],
    loaders: Sequence[str],
    workers: int,
    quantity: str,
    style: str,
) -> str:
    """Rows k, columns loaders; for rates also what ours is of the limit and of the best peer."""
    compares = quantity == "samples_per_second" and OURS in loaders
    header = ["k", *(PEERS[loader] for loader in loaders)]
    rows = []
    for k in domains:
        values = {loader: results.median(k, loader, workers, quantity) for loader in loaders}
        row = [f"{k:,}"]
        for loader, value in values.items():
            missing = results.gave_up(k, loader, workers) or "not measured"
            row.append(missing if value is None else style.format(value))
        if compares:
            ratios = results.ratios(k, workers, OURS, LIMIT, quantity)
            row.append(spread(ratios))
            rivals = [
                v for name, v in values.items() if v is not None and name not in (OURS, LIMIT)
            ]
            ours = values[OURS]
            row.append(f"{ours / max(rivals):,.1f}" if rivals and ours is not None else "-")
        rows.append(row)
    return table([*header, "ours ÷ limit", "ours ÷ best peer"] if compares else header, rows)


def steering_table(results: Results, domains: Sequence[int], workers: Sequence[int]) -> str:
    """What set_mixture costs, and how many batches of the old mixture still come."""
    header = ["k"]
    for count in workers:
        header += [f"set_mixture, {processes(count)}", "old batches after it"]
    rows = []
    for k in domains:
        row = [f"{k:,}"]
        for count in workers:
            for quantity, style in (("set_mixture_us", "{:,.0f} µs"), ("delay_batches", "{:.0f}")):
                value = results.median(k, OURS, count, quantity)
                row.append("not measured" if value is None else style.format(value))
        making = results.median(k, OURS, workers[0], "make_mixture_us")
        row.append("not measured" if making is None else f"{making:,.0f} µs")
        rows.append(row)
    return table([*header, "Mixture.from_weights"], rows)


def processes(workers: int) -> str:
    """How a heading names them."""
    return f"{workers} workers" if workers else "in process"


def spread(ratios: Sequence[float]) -> str:
    """Median, and the range where there is one."""
    if not ratios:
        return "-"
    middle = sorted(ratios)[len(ratios) // 2]
    return f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
