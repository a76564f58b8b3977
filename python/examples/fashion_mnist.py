"""Trains on Fashion-MNIST without a learning rate to find, and plots d, loss and accuracy.

    apt install python3-torch python3-matplotlib dataset-fashion-mnist
    python3 python/examples/fashion_mnist.py --optimizer DAdaptAdam Prodigy

A change of the import is all that tells this from a script for the packages ``dadaptation`` and
``prodigyopt``. Prodigy, and whoever has ``--anneal``, gets a linear schedule of lr, from 1 to 0.
"""

import argparse
import gzip
import sys
import time
from pathlib import Path

import torch
from torch import nn

try:
    import dadapt
except ImportError:  # run from the repository, with the library built there
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import dadapt

NAMES = ("DAdaptAdam", "DAdaptSGD", "DAdaptAdaGrad", "DAdaptLion", "DAdaptAdan", "Prodigy")
DATA = Path("/usr/share/datasets/fashion-mnist")


def read(folder, name):
    """Images from 0 to 1, one a row, and their labels."""

    def raw(file, header):
        path = folder / f"{name}-{file}-ubyte.gz"
        if not path.exists():
            sys.exit(f"{path} is missing: apt install dataset-fashion-mnist, or --data FOLDER")
        return torch.frombuffer(
            bytearray(gzip.decompress(path.read_bytes())[header:]), dtype=torch.uint8
        )

    return raw("images-idx3", 16).view(-1, 784).float() / 255, raw("labels-idx1", 8).long()


def new_model():
    """A perceptron of two layers, the same in each run."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def bar(done, total, words):
    """A progress bar, where somebody sees it."""
    if sys.stderr.isatty():
        full = 30 * done // total
        sys.stderr.write(f"\r[{'#' * full}{'.' * (30 - full)}] {done}/{total} {words}")
        sys.stderr.flush()


def train(name, data, options):
    """Loss and d after each step, and the accuracy on the test images after each epoch."""
    (images, labels), (test_images, test_labels) = data
    model = new_model()
    settings = {"d_cap": options.d_cap}
    if options.growth_rate:
        settings["growth_rate"] = options.growth_rate
    optimizer = getattr(dadapt, name)(model.parameters(), **settings)
    steps = options.epochs * (len(images) // options.batch)
    anneal = options.anneal or name == "Prodigy"
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: 1 - k / steps if anneal else 1
    )
    losses, ds, accuracies, begin = [], [], [], time.perf_counter()
    for _ in range(options.epochs):
        for batch in torch.randperm(len(images)).split(options.batch)[: steps // options.epochs]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            ds.append(optimizer.param_groups[0]["d"])
            if len(losses) % 20 == 0:
                bar(len(losses), steps, f"{name}: loss {losses[-1]:.3f}, d {ds[-1]:.2e} ")
        with torch.no_grad():
            right = model(test_images).argmax(dim=1) == test_labels
        accuracies.append(right.float().mean().item())
    seconds = time.perf_counter() - begin
    last = sum(losses[-100:]) / len(losses[-100:])
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    print(
        f"{name}: d {ds[-1]:.2e}, loss {last:.3f}, accuracy {accuracies[-1]:.2%}, {seconds:.1f} s",
        flush=True,
    )
    return losses, ds, accuracies


def plot(runs, path):
    """d and loss by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for name, (losses, ds, accuracies) in runs.items():
        left.plot(ds, label=name)
        width = max(1, len(losses) // 100)
        means = [
            sum(losses[i : i + width]) / width for i in range(0, len(losses) - width + 1, width)
        ]
        places = [i * width for i in range(len(means))]
        right.plot(places, means, label=f"{name}, {accuracies[-1]:.1%} of the test images")
    left.set(title="the estimate", xlabel="step", ylabel="d", yscale="log")
    right.set(title="Fashion-MNIST", xlabel="step", ylabel="loss", ylim=(0, 1.2))
    left.legend(fontsize="small")
    right.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    print(f"drawn: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizer", nargs="+", choices=NAMES, default=["DAdaptAdam", "Prodigy"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--growth-rate", type=float, default=1.02, help="0 for no limit")
    parser.add_argument(
        "--d-cap", type=float, default=float("inf"), help="1e-3 keeps DAdaptLion in bounds"
    )
    parser.add_argument(
        "--anneal", action="store_true", help="a schedule for all, not only Prodigy"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--plot", type=Path, default=Path("fashion_mnist.svg"), help="where to draw"
    )
    options = parser.parse_args()
    data = read(options.data, "train"), read(options.data, "t10k")
    runs = {name: train(name, data, options) for name in options.optimizer}
    plot(runs, options.plot)


if __name__ == "__main__":
    main()
