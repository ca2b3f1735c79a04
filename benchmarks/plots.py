"""The pictures of docs/performance.md, drawn from the figures that were just measured."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

FAN_OUT = "2,000 browsers, 1 channel: CPU a delivery"
CHANNELS = "10,000 browsers on 1,000 channels: CPU a delivery, publishing included"
CONNECT = "connect and subscribe: CPU"
MEMORY = "an idle connection with a channel of its own: memory"
PANELS = {FAN_OUT: "µs", CHANNELS: "µs", CONNECT: "µs", MEMORY: "KB"}


def draw(folder: Path, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Write comparison.svg: a panel for each of a few figures, a bar for each server that has it."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, (what, unit) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        bars = {name: values[what] for name, values in measured.items() if what in values}
        colors = ["#2f6f4f" if name == "Aphlict" else "#b9b9b9" for name in bars]
        drawn = axes.barh(list(bars), list(bars.values()), color=colors)
        axes.bar_label(drawn, fmt="%.1f", padding=3)
        axes.set_title(f"{what} ({unit})", fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "comparison.svg", metadata={"Date": None})
