"""Train the digit classifier behind ``--features digits``: ``python -m ddpmkit.builtin.features.digits_train``.

It sees the training split alone (900 images, shifted by at most one pixel), for 60 epochs, with one thread and one
seed, and prints its accuracy on the splits it did not see. The file and its SHA-256 are shipped; nothing retrains it.
"""

from __future__ import annotations

import hashlib

import torch

from ddpmkit import files
from ddpmkit.builtin.datasets.digits import Digits
from ddpmkit.builtin.features._digitsnet import DigitsClassifier
from ddpmkit.builtin.features._training import step
from ddpmkit.builtin.features.digits import WEIGHTS
from ddpmkit.pixels import to_pixels

EPOCHS, BATCH, SEED = 60, 50, 0


def main() -> None:
    """Train, print the accuracies and the hash, write the file."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    data = Digits().load()
    images, labels = {}, {}
    for split in ("train", "validation", "test"):
        images[split] = to_pixels(torch.from_numpy(getattr(data, split)), data.levels)
        labels[split] = torch.from_numpy(data.labels[split])
    net = DigitsClassifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images["train"])).split(BATCH):
            step(net, optimizer, images["train"][index], labels["train"][index])
        decay.step()
    net.eval()
    with torch.no_grad():
        for split, x in images.items():
            accuracy = (net(x).argmax(1) == labels[split]).float().mean()
            print(f"{split:<10} accuracy {accuracy:.4f}")
    blob = files.pack(net.state_dict())
    WEIGHTS.write_bytes(blob)
    print(f"wrote {WEIGHTS.name}, {len(blob)} bytes, sha256 {hashlib.sha256(blob).hexdigest()}")


if __name__ == "__main__":
    main()
