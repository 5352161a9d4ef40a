"""Examples a second of onnxruntime on one thread: compare_inference.py DIR MODEL BATCH prints those of DIR/MODEL.onnx and of
DIR/MODEL.int8.onnx, the median of seven passes that take turns. Called by scripts/compare-inference."""

import statistics
import sys
import time

import numpy
import onnxruntime

folder, model, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
sessions = []
for kind in ("", ".int8"):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = f"{folder}/{model}{kind}.onnx"
    sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
shape = [batch] + sessions[0].get_inputs()[0].shape[1:]
x = numpy.random.default_rng(1).random(shape, dtype=numpy.float32)


def seconds(session, passes):
    start = time.perf_counter()
    for _ in range(passes):
        session.run(["logits"], {"input": x})
    return time.perf_counter() - start


passes = []
for session in sessions:
    seconds(session, 3)
    passes.append(max(1, int(0.05 / seconds(session, 1))))
rates = [[], []]
for _ in range(7):
    for i, session in enumerate(sessions):
        rates[i].append(batch * passes[i] / seconds(session, passes[i]))
print(*(f"{statistics.median(rate):.0f}" for rate in rates))
