"""Train the classifier behind ``--features mnist``: ``python -m ddpmkit.builtin.features.mnist_train mnist.npz``.

The file holds train_images, train_labels, test_images and test_labels, as ``--dataset npz:path=mnist.npz`` reads it.
The training sees the training split alone (59000 images, shifted by at most one pixel), for 5 epochs, with one thread
and one seed. The weights are stored in half precision, and the accuracies printed are those of the stored weights. The
file and its SHA-256 are shipped; nothing retrains it.
"""

from __future__ import annotations

import hashlib
import sys

import torch

from ddpmkit import files
from ddpmkit.builtin.datasets.npz import Npz
from ddpmkit.builtin.features._mnistnet import MnistClassifier
from ddpmkit.builtin.features._training import step
from ddpmkit.builtin.features.mnist import WEIGHTS
from ddpmkit.pixels import to_pixels

EPOCHS, BATCH, SEED = 5, 128, 0


def main() -> None:
    """Train, print the accuracies and the hash, write the file."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    data = Npz(path=sys.argv[1]).load()
    images, labels = {}, {}
    for split in ("train", "validation", "test"):
        images[split] = torch.from_numpy(getattr(data, split))
        labels[split] = torch.from_numpy(data.labels[split])
    net = MnistClassifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(images["train"]) // BATCH))
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images["train"])).split(BATCH):
            step(net, optimizer, to_pixels(images["train"][index], data.levels), labels["train"][index])
            decay.step()
    net.eval()
    weights = {name: value.half() for name, value in net.state_dict().items()}
    net.load_state_dict(weights)
    with torch.inference_mode():
        for split, x in images.items():
            right = [(net(to_pixels(part, data.levels)).argmax(1)) for part in x.split(1000)]
            print(f"{split:<10} accuracy {(torch.cat(right) == labels[split]).float().mean():.4f}")
    blob = files.pack(weights)
    WEIGHTS.write_bytes(blob)
    print(f"wrote {WEIGHTS.name}, {len(blob)} bytes, sha256 {hashlib.sha256(blob).hexdigest()}")


if __name__ == "__main__":
    main()
