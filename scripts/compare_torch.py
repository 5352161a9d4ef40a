"""Training speed of torch on one thread, in examples per second: a line `model batch speed` for each.

Plain SGD over a data set in memory, as the `throughput` example of dunlin-nn does; the median of five passes.
"""

import statistics
import sys
import time

import torch
from torch import nn

torch.set_num_threads(1)
CHANNELS_LAST = "channels-last" in sys.argv[1:]


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(8, outputs)
            )

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def two_nn():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )


def mcmahan_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
    )


def resnet(blocks):
    channels = [16] * blocks + [32] * blocks + [64] * blocks
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.GroupNorm(8, 16), nn.ReLU(),
        *(Block(inputs, outputs) for inputs, outputs in zip([16, *channels], channels)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )


for name, build, shape, rows in [
    ("2nn", two_nn, (1, 28, 28), 10_000),
    ("mcmahan-cnn", mcmahan_cnn, (1, 28, 28), 500),
    ("resnet8", lambda: resnet(1), (3, 32, 32), 500),
    ("resnet20", lambda: resnet(3), (3, 32, 32), 200),
]:
    for batch in (10, 32):
        torch.manual_seed(1)
        model, x, labels = build(), torch.rand(rows, *shape), torch.arange(rows) % 10
        if CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        seconds = []
        for _ in range(5):
            order = torch.randperm(rows)
            begin = time.perf_counter()
            for start in range(0, rows, batch):
                index = order[start : start + batch]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[index]), labels[index]).backward()
                optimizer.step()
            seconds.append(time.perf_counter() - begin)
        print(name, batch, round(rows / statistics.median(seconds)), flush=True)
