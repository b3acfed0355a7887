#!/usr/bin/env python3
"""Makes metrics.json: outputs of two models and the figures numpy gives for them. Needs numpy only; run it in this folder."""
import json

import numpy as np


def case(name, samples, dtype=np.float32):
    """One output over several samples, each a pair (original, quantized) of nested lists."""
    pairs = [(np.array(a, dtype), np.array(b, dtype)) for a, b in samples]
    y = np.concatenate([a.ravel() for a, _ in pairs]).astype(np.float64)
    x = np.concatenate([b.ravel() for _, b in pairs]).astype(np.float64)
    fine = np.isfinite(x) & np.isfinite(y)
    bad, bad_before = int((~np.isfinite(x)).sum()), int((~np.isfinite(y)).sum())
    y, x = y[fine], x[fine]
    signal, noise = float(np.sum(y**2)), float(np.sum((x - y) ** 2))
    sqnr = None if bad > bad_before or (signal == 0 and noise > 0) else "identical" if noise == 0 else float(10 * np.log10(signal / noise))
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    classes = all(a.ndim == 2 and a.shape[0] == 1 and a.shape[1] > 1 for a, _ in pairs)
    text = lambda array: [v if np.isfinite(v) else str(v) for v in array.astype(np.float64).ravel().tolist()]
    return dict(
        name=name,
        samples=[dict(shape=list(a.shape), original=text(a), quantized=text(b)) for a, b in pairs],
        sqnr_db=sqnr,
        cosine=float(x @ y) / norm if norm > 0 else None,
        max_abs_error=float(np.abs(x - y).max()) if x.size else 0.0,
        values=sum(a.size for a, _ in pairs),
        non_finite=bad,
        original_non_finite=bad_before,
        top1_agreement=float(np.mean([a.argmax() == b.argmax() for a, b in pairs])) if classes else None,
    )


rng = np.random.default_rng(7)
logits = rng.normal(size=(4, 1, 10)).astype(np.float32)
noisy = logits + rng.normal(scale=0.3, size=logits.shape).astype(np.float32)
maps = rng.normal(size=(2, 1, 3, 4, 5)).astype(np.float32)
nan, inf = float("nan"), float("inf")
cases = [
    case("logits", list(zip(logits, noisy))),
    case("maps", [(m, np.round(m * 16) / 16) for m in maps]),
    case("identical", [(m, m) for m in maps]),
    case("no signal", [([[0, 0]], [[0, 0.5]])]),
    case("all zero", [([[0, 0]], [[0, 0]])]),
    case("empty", [(np.zeros((1, 0)), np.zeros((1, 0)))]),
    case("new NaN", [([[1, 2, 3]], [[1, nan, 3.5]])]),
    case("NaN in both", [([[1, nan, 3]], [[1, nan, 3.5]]), ([[1, inf, -inf]], [[1, inf, -inf]])]),
    case("ties", [([[2, 2, 1]], [[2, 2, 1.5]]), ([[1, 2, 2]], [[1, 1.5, 2]])]),
    case("one class", [([[0.25]], [[0.75]])]),
]
with open("metrics.json", "w") as file:
    json.dump(cases, file, indent=1)
    file.write("\n")
