"""Draws a record, plot.py IN.csv OUT.svg: time a parameter against size, and the ceiling."""

import csv
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt

SIZES = ("1e5", "1e6", "1e7", "gpt2")
GREY, BLUE, RED, ORANGE, GREEN, BROWN = (
    *("#888888", "#1f5fbf", "#c8322b"),
    *("#e08a1e", "#2f8f4e", "#8c5a3c"),
)
# Row, what the legend calls it, colour, line.
LINES = [
    ("dadaptation_adam", "DAdaptAdam, as installed", RED, "-"),
    ("dadaptation_adam_tuned", "DAdaptAdam, malloc tuned", RED, "--"),
    ("prodigyopt", "prodigyopt, as installed", ORANGE, "-"),
    ("prodigyopt_tuned", "prodigyopt, malloc tuned", ORANGE, "--"),
    ("optax_prodigy", "optax prodigy, jit", GREEN, "-"),
    ("optax_adamw", "optax adamw, jit", GREEN, ":"),
    ("candle_adamw", "candle AdamW", BROWN, "-"),
    ("burn_flex_adamw", "burn AdamW", BROWN, ":"),
    ("torch_adamw", "PyTorch AdamW, fused", "#444444", "-"),
    ("deepspeed_adamw", "DeepSpeed CPU Adam", "#444444", "--"),
    ("c_adamw_openmp", "C loop, AdamW", "#444444", ":"),
    ("prodigy", "dadapt: Prodigy", "#6fa8ff", "-"),
    ("adam", "dadapt: D-Adapt Adam", BLUE, "-"),
]
CEILINGS = [
    ("ceiling_dadapt_adam", "memory alone, D-Adapt Adam's 36 bytes", "-"),
    ("ceiling_adamw", "memory alone, AdamW's 28 bytes", "--"),
]


def points(rows, name, threads):
    """Parameters and medians of a row."""
    found = [r for r in rows if r["row"] == name and r["threads"] == threads and r["size"] in SIZES]
    found.sort(key=lambda r: int(r["parameters"]))
    return [int(r["parameters"]) for r in found], [float(r["median"]) for r in found]


def draw(rows, path):
    """One panel for each number of threads."""
    mpl.rcParams.update({"svg.hashsalt": "dadapt", "svg.fonttype": "none", "font.size": 9})
    threads = sorted({r["threads"] for r in rows}, key=int)
    figure, axes = plt.subplots(
        1, len(threads), figsize=(4.6 * len(threads) + 2.4, 4.6), sharey=True, squeeze=False
    )
    for axis, count in zip(axes[0], threads, strict=True):
        for name, label, style in CEILINGS:
            axis.plot(*points(rows, name, count), style, color=GREY, lw=3, alpha=0.6, label=label)
        for name, label, colour, style in LINES:
            width = 2.2 if label.startswith("dadapt") else 1.2
            axis.plot(
                *points(rows, name, count),
                style,
                color=colour,
                lw=width,
                marker="o",
                ms=3,
                label=label,
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks([1e5, 1e6, 1e7, 124439808], ["1e5", "1e6", "1e7", "GPT-2"])
        axis.minorticks_off()
        axis.set_yticks(
            [0.2, 0.5, 1, 2, 5, 10, 20, 50], ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
        )
        axis.grid(alpha=0.25)
        axis.set_xlabel("parameters")
        axis.set_title(f"{count} thread" + "s" * (count != "1"), fontsize=10)
    axes[0][0].set_ylabel("nanoseconds a parameter, a step")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1 - 2.4 / (4.6 * len(threads) + 2.4), 1))
    figure.legend(handles, labels, loc="center right", fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def main():
    """The two paths of the command line."""
    with open(sys.argv[1], newline="") as lines:
        draw(list(csv.DictReader(lines)), sys.argv[2])


if __name__ == "__main__":
    main()
