"""digits_lstm: reads an image row by row. Images come at very different exposures, as from a camera without automatic gain.

The network does not care: it normalises each image after its first layer. A fixed range for that layer's input does.
"""
import jax
import jax.numpy as jnp
import numpy as np

from digits import shift_randomly
from fit import fit, glorot
from graph import Graph

ROWS, PROJECTION, HIDDEN = 28, 32, 64
STOPS = 10  # exposures 1, 1/2, 1/4 ... 1/512
EPSILON = 1e-12  # below the smallest power of the darkest image


def expose(images, rng):
    """Each image at a random exposure; whole stops (powers of two) keep the files small and the values exact."""
    stops = rng.integers(0, STOPS, (len(images), 1, 1))
    return images * np.exp2(-stops).astype(np.float32)


def prepare(images, rng):
    return expose(shift_randomly(images, rng), rng)


def start(rng):
    """LSTM gates in ONNX's order: input, output, forget, cell. An open forget gate at the start helps over 28 steps."""
    bias = np.zeros(4 * HIDDEN, np.float32)
    bias[2 * HIDDEN:3 * HIDDEN] = 1
    return {"projection": glorot(rng, ROWS, PROJECTION), "input": glorot(rng, PROJECTION, 4 * HIDDEN),
            "recurrent": jnp.concatenate([glorot(rng, HIDDEN, HIDDEN) for _ in range(4)], 1), "bias": jnp.asarray(bias),
            "head": {"w": glorot(rng, HIDDEN, 10), "b": jnp.zeros(10)}}


def forward(params, x):
    """x: [batch, row, pixel]."""
    rows = x @ params["projection"]
    rows = rows / jnp.sqrt(jnp.square(rows).mean((1, 2), keepdims=True) + EPSILON)
    drive = (rows @ params["input"] + params["bias"]).transpose(1, 0, 2)

    def step(state, now):
        hidden, cell = state
        gates = now + hidden @ params["recurrent"]
        i, o, f, c = jnp.split(gates, 4, 1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(c)
        return (jax.nn.sigmoid(o) * jnp.tanh(cell), cell), None

    empty = jnp.zeros((x.shape[0], HIDDEN))
    (hidden, _), _ = jax.lax.scan(step, (empty, empty), drive)
    return hidden @ params["head"]["w"] + params["head"]["b"]


def write(params, path):
    graph = Graph("digits_lstm", "rows", [ROWS, ROWS])
    rows = graph.add("MatMul", "projection", "rows", graph.weight("projection.weight", params["projection"]))
    square = graph.add("Mul", "gain.square", rows, rows)
    power = graph.add("ReduceMean", "gain.power", square, axes=[1, 2], keepdims=1)
    safe = graph.add("Add", "gain.floor", power, graph.weight("gain.epsilon", np.array(EPSILON)))
    rows = graph.add("Div", "gain.divide", rows, graph.add("Sqrt", "gain.root", safe))
    rows = graph.add("Transpose", "time_first", rows, perm=[1, 0, 2])
    bias = np.concatenate([np.asarray(params["bias"]), np.zeros(4 * HIDDEN, np.float32)])
    last = graph.add("LSTM", "lstm", rows, graph.weight("lstm.W", np.asarray(params["input"]).T[None]),
                     graph.weight("lstm.R", np.asarray(params["recurrent"]).T[None]), graph.weight("lstm.B", bias[None]),
                     outputs=["", "lstm.last"], hidden_size=HIDDEN)
    last = graph.add("Squeeze", "last_row", last, graph.weight("last_row.axes", np.array([0])))
    graph.gemm("head", last, params["head"]["w"], params["head"]["b"], output="logits")
    graph.save(path, "Handwritten digits read row by row by an LSTM, at any exposure")


def build(images, labels, path, epochs):
    params = fit(forward, start(np.random.default_rng(3)), images, labels, prepare, epochs, 4e-3)
    write(jax.tree.map(np.asarray, params), path)


def calibration_inputs(images, trained):
    return {"rows": expose(images, np.random.default_rng(10))}


def evaluation_inputs(images):
    return {"rows": expose(images, np.random.default_rng(11))}
