"""AlexNet as one writes it in PyTorch at first: the peer of every training benchmark.

Stock layers in a row, stock SGD, one image at a time through transforms, contiguous float32 batches.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.setups import DEVICE
from pipeline.data.store import SplitName, Store
from pipeline.params import Settings


def plain_net(settings: Settings, classes: int) -> nn.Sequential:
    """Input: (N, 3, crop, crop)."""
    width, crop_px = settings.net.width, settings.net.crop_px
    c1, c2, c3, c5, hidden = (round(kernels * width) for kernels in (96, 256, 384, 256, 4096))
    side = {67: 1, 227: 6}[crop_px]
    return nn.Sequential(
        *(nn.Conv2d(3, c1, 11, 4), nn.ReLU(), nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c1, c2, 5, padding=2, groups=2), nn.ReLU()),
        *(nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c3, c3, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(c3, c5, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()),
        *(nn.Linear(c5 * side**2, hidden), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
        nn.Linear(hidden, classes),
    )


class PlainImages(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, store: Store, split: SplitName, crop_px: int, augment: bool) -> None:
        self._split, self._crop_px, self._augment = store.split(split), crop_px, augment
        self._mean = torch.from_numpy(store.mean_image).permute(2, 0, 1)
        self._axes = torch.tensor(store.meta.rgb_eigenvectors) * torch.tensor(store.meta.rgb_std)

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(self._split.images[index].copy()).permute(2, 0, 1).float() - self._mean
        image = image.expand(3, -1, -1)
        margin = image.shape[1] - self._crop_px
        top, left = torch.randint(margin + 1, (2,)).tolist() if self._augment else (margin // 2, margin // 2)
        image = image[:, top : top + self._crop_px, left : left + self._crop_px]
        if self._augment:
            if torch.rand(1) < 0.5:
                image = image.flip(2)
            image = image + (self._axes @ (0.1 * torch.randn(3)))[:, None, None]
        return image.contiguous(), torch.tensor(self._split.labels[index])


def plain_loop(store: Store, settings: Settings, epochs: int, max_steps: int | None = None) -> Callable[[], None]:
    """The work: `epochs` of training, each followed by validation; or `max_steps` steps and no validation."""
    net = plain_net(settings, len(store.meta.classes)).to(DEVICE)
    train = settings.train
    optimizer = torch.optim.SGD(net.parameters(), train.lr, train.momentum, weight_decay=train.weight_decay)
    crop_px = settings.net.crop_px
    batches = DataLoader(PlainImages(store, "train", crop_px, True), train.batch_images, shuffle=True)
    validation = DataLoader(PlainImages(store, "val", crop_px, False), 500)

    def work() -> None:
        for _ in range(epochs):
            net.train()
            for step, (x, labels) in enumerate(batches):
                if step == max_steps:
                    return
                optimizer.zero_grad()
                F.cross_entropy(net(x.to(DEVICE)), labels.to(DEVICE)).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                for x, labels in validation:
                    (net(x.to(DEVICE)).argmax(1) == labels.to(DEVICE)).float().mean().item()

    return work


def plain_steps(store: Store, settings: Settings, steps: int) -> Callable[[], None]:
    """Steps of the same net and optimizer, in bf16 by autocast, on one batch that lies ready: none waits for input."""
    net = plain_net(settings, len(store.meta.classes)).to(DEVICE)
    train, crop_px = settings.train, settings.net.crop_px
    optimizer = torch.optim.SGD(net.parameters(), train.lr, train.momentum, weight_decay=train.weight_decay)
    x = torch.randn(train.batch_images, 3, crop_px, crop_px, device=DEVICE)
    labels = torch.randint(len(store.meta.classes), (train.batch_images,), device=DEVICE)

    def work() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=train.precision == "bf16-mixed"):
                loss = F.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()

    return work
