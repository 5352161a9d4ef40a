"""Checks ONNX files; beside NAME.onnx or NAME.int8.onnx, NAME.safetensors has inputs and the logits to expect.

Floats have to agree to 1e-4 of the largest logit. 8-bit layers round, and where a sum lies on the edge of two levels
another order of addition rounds it the other way: there the runtime may be no farther from our 8-bit logits than twice
what rounding to 8 bits itself moves them from the float ones, and one label in ten may differ."""

import pathlib
import sys

import numpy
import onnx
import onnxruntime
from safetensors.numpy import load_file

failed = False
print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
print("file nodes bytes largest_difference mean_difference same_label")
for path in map(pathlib.Path, sys.argv[1:]):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    # Without it, sums of two products saturate on x86 without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    line = f"{path.name} {len(model.graph.node)} {path.stat().st_size}"
    kind = "int8" if path.name.endswith(".int8.onnx") else "f32"
    expected = path.with_name(path.name.removesuffix(".onnx").removesuffix(".int8") + ".safetensors")
    if not expected.exists():
        print(line, "checked only")
        continue
    tensors = load_file(expected)
    shape = [-1] + session.get_inputs()[0].shape[1:]
    logits = session.run(["logits"], {"input": tensors["x"].reshape(shape)})[0]
    difference = numpy.abs(logits - tensors[kind]) / numpy.abs(tensors[kind]).max()
    same = (logits.argmax(1) == tensors[kind].argmax(1)).mean()
    # Models of sequences have no 8-bit layers.
    moved = numpy.abs(tensors[kind] - tensors["f32"]).max() / numpy.abs(tensors["f32"]).max()
    fine = difference.max() < (1e-4 if kind == "f32" else max(2 * moved, 1e-3))
    # Of floats every label has to be the same; among 8-bit logits two may be level, so a few may differ.
    fine &= same == 1.0 if kind == "f32" else same >= 0.9
    failed |= not fine
    print(line, f"{difference.max():.1e} {difference.mean():.1e} {same:.2f}", "" if fine else "DIFFERS")
sys.exit(failed)
