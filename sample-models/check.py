#!/usr/bin/env python3
"""Show with ONNX Runtime's own quantizer what each sample model is for.

    python check.py [MODEL ...]

Every evaluation sample runs by itself (batch 1). SQNR = 10 log10(sum x^2 / sum (x - y)^2) over the logits of all of
them, x from the float model and y from the quantized one. Weights are symmetric int8, activations uint8.
"""
import contextlib
import io
import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

FOLDER = Path(__file__).resolve().parent
FAMILIES = ["Conv", "MatMul", "Gemm"]  # the layers with weights


class Samples(CalibrationDataReader):
    def __init__(self, path):
        self.feeds = iter(load_feeds(path))

    def get_next(self):
        return next(self.feeds, None)


def load_feeds(path):
    with np.load(path) as arrays:
        inputs = dict(arrays)
    return [{name: array[i:i + 1] for name, array in inputs.items()} for i in range(len(next(iter(inputs.values()))))]


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds]).astype(np.float64)


def static(entry, target, per_channel=True, percentile=None, mse=False, inputs_only=False, lstm=False):
    """Static QDQ; ranges by minmax unless a percentile or mse is asked for.

    `inputs_only` rounds what layers with weights take, and nothing else. `lstm`: int8 weights there too; an LSTM has no
    static form. They are quantized first: the other way round ONNX Runtime 1.28 can't open the file.
    """
    source, data = str(FOLDER / entry["file"]), FOLDER / entry["calibration"]
    if lstm:
        quantize_dynamic(source, str(target), op_types_to_quantize=["LSTM"], per_channel=per_channel, weight_type=QuantType.QInt8)
        source = str(target)
    extra = {"OpTypesToExcludeOutputQuantization": FAMILIES} if inputs_only else {}
    if mse:
        extra["TensorQuantOverrides"] = mse_overrides(source, data)
    if percentile:
        extra["CalibPercentile"] = percentile
    quantize_static(source, str(target), Samples(data), quant_format=QuantFormat.QDQ, op_types_to_quantize=FAMILIES if inputs_only else None,
                    per_channel=per_channel, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, extra_options=extra,
                    calibrate_method=CalibrationMethod.Percentile if percentile else CalibrationMethod.MinMax)


def dynamic(entry, target, per_channel=True):
    quantize_dynamic(str(FOLDER / entry["file"]), str(target), per_channel=per_channel, weight_type=QuantType.QInt8)


def mse_overrides(source, data):
    """Ranges with the least squared error of uint8 rounding, for every activation."""
    model = onnx.load(source)
    own = {v.name for v in (*model.graph.input, *model.graph.output)}
    names = sorted(own | {v for n in model.graph.node for v in n.output if v})
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in own)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [name for name in names if name not in {v.name for v in model.graph.input}]
    seen = {name: [] for name in names}
    for feed in load_feeds(data):
        values = feed | dict(zip(wanted, session.run(wanted, feed)))
        for name in names:
            seen[name].append(values[name].ravel())
    overrides = {}
    for name, values in seen.items():
        low, high = mse_range(np.concatenate(values))
        overrides[name] = [{"rmin": np.float32(low), "rmax": np.float32(high)}]
    return overrides


def mse_range(values):
    """Shrink either end of the range by turns as long as the rounding error of a fine histogram falls."""
    counts, edges = np.histogram(values, 16384)
    middles, ends = (edges[1:] + edges[:-1]) / 2, [min(values.min(), 0.0), max(values.max(), 0.0)]

    def error(low, high):
        scale = max(high - low, 1e-12) / 255
        return float(counts @ np.square(np.clip(np.rint((middles - low) / scale), 0, 255) * scale + low - middles))

    for _ in range(2):
        for side in (0, 1):
            tries = [ends[side] * 0.97 ** k for k in range(200)]
            ends[side] = min(tries, key=lambda end: error(*(ends[:side] + [end] + ends[side + 1:])))
    return ends


CONFIGURATIONS = {
    "digits_cnn": {
        "static, per-tensor weights": lambda e, t: static(e, t, per_channel=False),
        "static, per-channel weights": static,
        "  layer inputs only, per-tensor weights": lambda e, t: static(e, t, per_channel=False, inputs_only=True),
        "  layer inputs only, per-channel weights": lambda e, t: static(e, t, inputs_only=True),
        "dynamic": dynamic,
    },
    "digits_transformer": {
        "static, minmax": static,
        "static, percentile 99.99": lambda e, t: static(e, t, percentile=99.99),
        "static, percentile 99.9": lambda e, t: static(e, t, percentile=99.9),
        "static, mse": lambda e, t: static(e, t, mse=True),
        "  layer inputs only, minmax": lambda e, t: static(e, t, inputs_only=True),
        "  layer inputs only, percentile 99.99": lambda e, t: static(e, t, inputs_only=True, percentile=99.99),
        "  layer inputs only, percentile 99.9": lambda e, t: static(e, t, inputs_only=True, percentile=99.9),
        "  layer inputs only, mse": lambda e, t: static(e, t, inputs_only=True, mse=True),
        "dynamic": dynamic,
    },
    "digits_lstm": {
        "static layer inputs, minmax, float LSTM": lambda e, t: static(e, t, inputs_only=True),
        "static layer inputs, minmax, int8 LSTM": lambda e, t: static(e, t, inputs_only=True, lstm=True),
        "static layer inputs, percentile 99.9": lambda e, t: static(e, t, inputs_only=True, percentile=99.9, lstm=True),
        "static layer inputs, mse": lambda e, t: static(e, t, inputs_only=True, mse=True, lstm=True),
        "dynamic, int8 LSTM": dynamic,
    },
}


def main():
    logging.disable(logging.WARNING)  # the quantizer advises preprocessing, which these small graphs don't need
    for entry in json.loads((FOLDER / "models.json").read_text())["models"]:
        name = Path(entry["file"]).stem
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        feeds, labels = load_feeds(FOLDER / entry["evaluation"]), np.load(FOLDER / entry["labels"])
        exact = run(FOLDER / entry["file"], feeds)
        size = (FOLDER / entry["file"]).stat().st_size
        print(f"\n{name}: {len(labels)} samples\n  {'configuration':44}{'SQNR dB':>9}{'accuracy %':>12}{'bytes':>10}")
        print(f"  {'float32':44}{'':>9}{100 * (exact.argmax(1) == labels).mean():12.2f}{size:10}")
        for title, quantize in CONFIGURATIONS[name].items():
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "quantized.onnx"
                with contextlib.redirect_stdout(io.StringIO()):  # the calibrators report every step
                    quantize(entry, target)
                logits, size = run(target, feeds), target.stat().st_size
            sqnr = 10 * np.log10(np.square(exact).sum() / np.square(exact - logits).sum())
            print(f"  {title:44}{sqnr:9.2f}{100 * (logits.argmax(1) == labels).mean():12.2f}{size:10}", flush=True)


if __name__ == "__main__":
    main()
