"""Training speed of torch: `compare_torch.py MODEL BATCH THREADS [channels-last]` prints model, batch, examples per
second and the peak of the process's memory in MiB.

Plain SGD over a data set in memory, as the `throughput` example of dunlin-nn does; the median of five passes.
"""

import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

NAME, BATCH, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
CHANNELS_LAST = "channels-last" in sys.argv[4:]
torch.set_num_threads(THREADS)


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


def mobilenet():
    layers = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.GroupNorm(8, 32), nn.ReLU()]
    inputs = 32
    for outputs, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]:
        layers += [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.GroupNorm(8, inputs), nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU(),
        ]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


class CharLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(90, 8)
        self.lstm = nn.LSTM(8, 256, 2, batch_first=True)
        self.fc = nn.Linear(256, 90)

    def forward(self, x):
        return self.fc(self.lstm(self.embedding(x))[0][:, -1])


class TransformerBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(128), nn.LayerNorm(128)
        self.qkv, self.out = nn.Linear(128, 384), nn.Linear(128, 128)
        self.fc1, self.fc2 = nn.Linear(128, 512), nn.Linear(512, 128)

    def forward(self, x):
        batch, steps, width = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, steps, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, steps, width)
        x = x + F.dropout(self.out(y), 0.1)
        return x + F.dropout(self.fc2(F.gelu(self.fc1(self.norm2(x)))), 0.1)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 128)
        self.positions = nn.Parameter(torch.randn(64, 128) * 0.02)
        self.blocks = nn.Sequential(TransformerBlock(), TransformerBlock())
        self.norm, self.fc = nn.LayerNorm(128), nn.Linear(128, 2)

    def forward(self, x):
        x = self.blocks(F.dropout(self.embedding(x) + self.positions, 0.1))
        return self.fc(self.norm(x).mean(1))


MODELS = {
    "2nn": (two_nn, (1, 28, 28), 10_000, 0, 10),
    "mcmahan-cnn": (mcmahan_cnn, (1, 28, 28), 600, 0, 10),
    "resnet8": (lambda: resnet(1), (3, 32, 32), 500, 0, 10),
    "resnet20": (lambda: resnet(3), (3, 32, 32), 200, 0, 10),
    "mobilenet": (mobilenet, (3, 32, 32), 200, 0, 10),
    "char-lstm": (CharLstm, (80,), 320, 90, 90),
    "transformer": (Transformer, (64,), 640, 1000, 2),
}
build, shape, rows, vocabulary, classes = MODELS[NAME]
torch.manual_seed(1)
model, labels = build(), torch.arange(rows) % classes
x = torch.randint(vocabulary, (rows, *shape)) if vocabulary else torch.rand(rows, *shape)
if CHANNELS_LAST and not vocabulary:
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
seconds = []
for _ in range(5):
    order = torch.randperm(rows)
    begin = time.perf_counter()
    for start in range(0, rows, BATCH):
        index = order[start : start + BATCH]
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), labels[index]).backward()
        optimizer.step()
    seconds.append(time.perf_counter() - begin)
peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(NAME, BATCH, round(rows / statistics.median(seconds)), peak_mib)
