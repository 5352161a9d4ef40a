#!/usr/bin/env python3
"""Flower's mean of ten updates: milliseconds for all ten, and gigabytes of f32 a second, as server/examples/aggregation.rs
prints them. Called by scripts/compare-aggregation."""
import statistics
import sys
import time

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.server.strategy.aggregate import aggregate
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

# The tensors of McMahan's CNN, scaled to the number of coordinates that is asked for.
SHAPES = [(32, 1, 5, 5), (32,), (64, 32, 5, 5), (64,), (512, 3136), (512,), (10, 512), (10,)]
UPDATES, ROUNDS = 10, 21


def measure(name, run):
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    print(f"{name} {1e3 * median:.3f} {4e-9 * n * UPDATES / median:.3f}")


n = int(sys.argv[1])
random = np.random.default_rng(1)
whole = sum(int(np.prod(shape)) for shape in SHAPES)
shapes = SHAPES if n == whole else [(n,)]
updates = [[random.standard_normal(shape, dtype=np.float32) for shape in shapes] for _ in range(UPDATES)]
measure("flower, arrays in memory", lambda: aggregate([(update, 600) for update in updates]))
records = [
    RecordDict(
        {
            "arrays": ArrayRecord({str(i): Array(array) for i, array in enumerate(update)}),
            "metrics": MetricRecord({"num-examples": 600}),
        }
    )
    for update in updates
]
measure("flower, records as received", lambda: aggregate_arrayrecords(records, "num-examples"))
