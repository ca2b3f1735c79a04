"""Draws the plot in docs/performance.md from the results of `python -m benchmarks --competitors --json FIGURES`.

python -m benchmarks.plots FIGURES docs/images
"""

import json
import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

FAN_OUT = "2,000 clients, 1 channel: CPU per delivery"
CHANNELS = "10,000 clients on 1,000 channels: CPU per delivery, publishing included"
CONNECT = "connect and subscribe: CPU"
MEMORY = "an idle connection with a channel of its own: memory"
PANELS = {
    FAN_OUT: "2,000 clients, one channel: CPU per delivery (µs)",
    CHANNELS: "10,000 clients, 1,000 channels: CPU per delivery (µs)",
    CONNECT: "connect and subscribe: CPU (µs)",
    MEMORY: "an idle connection: memory (KB)",
}


def draw(source: Path, folder: Path) -> None:
    """Write comparison.svg: a panel for each of a few figures, a bar for each server that has it."""
    measured: dict[str, dict[str, list[list[float]]]] = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes, (what, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        bars = {
            name: statistics.median(run[1] for run in values[what])
            for name, values in measured.items()
            if what in values
        }
        colors = ["#2f6f4f" if name == "Aphlict" else "#b9b9b9" for name in bars]
        drawn = axes.barh(list(bars), list(bars.values()), color=colors)
        axes.bar_label(drawn, fmt="%.1f", padding=3)
        axes.set_title(title, fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "comparison.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
