"""digits_transformer: two encoder layers over 49 patches, with a rare huge value in one activation.

Large transformers grow "massive activations": one channel of a few tokens becomes many times larger than everything else,
and the next layer hardly reads it. A network this small, trained for minutes, does not, so training leaves one residual
channel idle and `plant_outlier` wires it up afterwards. The float model with the outlier in it is the model.
"""
import jax
import jax.numpy as jnp
import numpy as np

from digits import shift_randomly
from fit import fit, glorot
from graph import Graph

WIDTH, HEADS, HIDDEN, ENCODERS, TOKENS, PATCH = 48, 4, 256, 2, 49, 16
IDLE = WIDTH - 1  # the residual channel that no trained weight writes or reads
EPSILON = 1e-5
RARE = 0.006  # share of images with an outlier; a least-squares range (mse) only gives up values as rare as this
OUTLIER = 1600.0  # about its size; ordinary values of that activation stay below 10


def prepare(images, rng):
    return shift_randomly(images, rng)[:, None]


def start(rng):
    dense = lambda a, b: {"w": glorot(rng, a, b), "b": jnp.zeros(b)}
    norm = lambda: {"w": jnp.ones(WIDTH), "b": jnp.zeros(WIDTH)}
    params = {"embed": dense(PATCH, WIDTH), "position": jnp.asarray(rng.normal(0, 0.5, (TOKENS, WIDTH)), jnp.float32),
              "norm": norm(), "head": dense(WIDTH, 10)}
    for i in range(ENCODERS):
        params[f"encoder{i}"] = {"norm1": norm(), "norm2": norm(), "fc1": dense(WIDTH, HIDDEN), "fc2": dense(HIDDEN, WIDTH)} | {
            name: dense(WIDTH, WIDTH) for name in ("query", "key", "value", "out")}
    return params


def quiet_write(array):
    """What writes to the residual stream: nothing to the idle channel, zero mean over the others.

    The mean is free, as every reader normalises first; at zero the idle channel stays exactly zero behind the normalisation.
    """
    used = array[..., :IDLE] - array[..., :IDLE].mean(-1, keepdims=True)
    return jnp.concatenate([used, jnp.zeros_like(array[..., IDLE:])], -1)


def quiet_read(array):
    """What reads the normalised residual stream ignores the idle channel."""
    return array.at[IDLE].set(0)


def settle(params):
    """Parameters with the idle channel kept idle. The network is trained through this."""
    write = lambda p: {"w": quiet_write(p["w"]), "b": quiet_write(p["b"])}
    read = lambda p: {"w": quiet_read(p["w"]), "b": p["b"]}
    norm = lambda p: {"w": p["w"].at[IDLE].set(1), "b": p["b"].at[IDLE].set(0)}
    settled = {"embed": write(params["embed"]), "position": quiet_write(params["position"]),
               "norm": norm(params["norm"]), "head": read(params["head"])}
    for i in range(ENCODERS):
        p = params[f"encoder{i}"]
        settled[f"encoder{i}"] = {name: read(p[name]) for name in ("query", "key", "value", "fc1")} | {
            name: write(p[name]) for name in ("out", "fc2")} | {name: norm(p[name]) for name in ("norm1", "norm2")}
    return settled


def linear(p, x):
    return x @ p["w"] + p["b"]


def normalise(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON) * p["w"] + p["b"]


def attend(p, x):
    split = lambda y: y.reshape(*y.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)
    query, key, value = (split(linear(p[name], x)) for name in ("query", "key", "value"))
    scores = jax.nn.softmax(query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH // HEADS), -1)
    return linear(p["out"], (scores @ value).transpose(0, 2, 1, 3).reshape(*x.shape))


def forward(params, x, trace=None):
    """Logits of settled parameters; `trace` collects every layer's residual stream and the sums before its ReLU."""
    patches = x.reshape(-1, 7, 4, 7, 4).transpose(0, 1, 3, 2, 4).reshape(-1, TOKENS, PATCH)
    x = linear(params["embed"], patches) + params["position"]
    for i in range(ENCODERS):
        p = params[f"encoder{i}"]
        x = x + attend(p, normalise(p["norm1"], x))
        sums = linear(p["fc1"], normalise(p["norm2"], x))
        if trace is not None:
            trace.append((np.asarray(x), np.asarray(sums)))
        x = x + linear(p["fc2"], jax.nn.relu(sums))
    return linear(params["head"], normalise(params["norm"], x).mean(1))


def plant_outlier(params, x):
    """Turn one hidden unit of either layer, the least useful one, into the two stages of a massive activation.

    Layer 0: a trained unit, copied with a threshold that only its strongest responses pass, writes to the idle channel.
    Layer 1: a unit that reads the idle channel only, strongly; no weight of fc2 reads that unit.
    """
    trace = []
    forward(params, x, trace)
    params = jax.tree.map(lambda a: np.array(a, np.float64), params)
    first, second = params["encoder0"], params["encoder1"]
    units = []
    for (_, sums), p in zip(trace, (first, second)):
        units.append(int(np.argmin(np.square(np.maximum(sums, 0)).mean((0, 1)) * np.square(p["fc2"]["w"]).sum(1))))
    source, threshold, excess = rare_response(trace[0][1])
    gain = np.sqrt(8 * trace[1][0].std() / excess)  # shared by both weights, so that neither dwarfs its neighbours
    first["fc1"]["w"][:, units[0]] = gain * first["fc1"]["w"][:, source]
    first["fc1"]["b"][units[0]] = gain * (first["fc1"]["b"][source] - threshold)
    first["fc2"]["w"][units[0]] = gain * np.eye(WIDTH)[IDLE]
    second["fc1"]["w"][:, units[1]] = OUTLIER / np.sqrt(WIDTH) * np.eye(WIDTH)[IDLE]
    second["fc1"]["b"][units[1]] = 0
    second["fc2"]["w"][units[1]] = 0
    return params


def rare_response(sums):
    """(unit, threshold, usual excess): the unit with the longest tail, and the threshold that RARE of the images pass."""
    peak = sums.max(1)
    threshold = np.quantile(peak, 1 - RARE, axis=0)
    excess = np.quantile(peak, 1 - RARE / 2, axis=0) - threshold
    unit = int(np.argmax(excess / peak.std(0)))
    return unit, threshold[unit], excess[unit]


def write(params, path):
    graph = Graph("digits_transformer", "image", [1, 28, 28])
    shape = lambda name, *sizes: graph.weight(f"{name}.shape", np.array(sizes))
    linear = lambda name, source, p: graph.linear(name, source, p["w"], p["b"])
    norm = lambda name, source, p: graph.add("LayerNormalization", name, source, graph.weight(f"{name}.weight", p["w"]),
                                             graph.weight(f"{name}.bias", p["b"]), axis=-1, epsilon=EPSILON)

    def attention(name, source, p):
        heads = {}
        for part in ("query", "key", "value"):
            rows = graph.add("Reshape", f"{name}.{part}.split", linear(f"{name}.{part}", source, p[part]),
                             shape(f"{name}.{part}.split", 0, TOKENS, HEADS, WIDTH // HEADS))
            heads[part] = graph.add("Transpose", f"{name}.{part}.heads", rows, perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3])
        scores = graph.add("MatMul", f"{name}.scores", heads["query"], heads["key"])
        scaled = graph.add("Mul", f"{name}.scale", scores, graph.weight(f"{name}.scale.factor", np.array((WIDTH // HEADS) ** -0.5)))
        mixed = graph.add("MatMul", f"{name}.mix", graph.add("Softmax", f"{name}.softmax", scaled, axis=-1), heads["value"])
        merged = graph.add("Reshape", f"{name}.merge", graph.add("Transpose", f"{name}.rows", mixed, perm=[0, 2, 1, 3]),
                           shape(f"{name}.merge", 0, TOKENS, WIDTH))
        return linear(f"{name}.out", merged, p["out"])

    grid = graph.add("Reshape", "patches.grid", "image", shape("patches.grid", -1, 7, 4, 7, 4))
    grid = graph.add("Transpose", "patches.order", grid, perm=[0, 1, 3, 2, 4])
    x = linear("embed", graph.add("Reshape", "patches.flat", grid, shape("patches.flat", -1, TOKENS, PATCH)), params["embed"])
    x = graph.add("Add", "position", x, graph.weight("position.table", params["position"]))
    for i in range(ENCODERS):
        name, p = f"encoder{i}", params[f"encoder{i}"]
        x = graph.add("Add", f"{name}.attention.residual", x, attention(f"{name}.attention", norm(f"{name}.norm1", x, p["norm1"]), p))
        hidden = graph.add("Relu", f"{name}.ffn.relu", linear(f"{name}.ffn.fc1", norm(f"{name}.norm2", x, p["norm2"]), p["fc1"]))
        x = graph.add("Add", f"{name}.ffn.residual", x, linear(f"{name}.ffn.fc2", hidden, p["fc2"]))
    x = graph.add("ReduceMean", "pool", norm("norm", x, params["norm"]), axes=[1], keepdims=0)
    graph.gemm("head", x, params["head"]["w"], params["head"]["b"], output="logits")
    graph.save(path, "Handwritten digits, transformer encoder over patches of 4 x 4 pixels")


def build(images, labels, path, epochs):
    params = fit(lambda p, x: forward(settle(p), x), start(np.random.default_rng(2)), images, labels, prepare, epochs, 3e-3)
    params = plant_outlier(settle(params), images[:4000, None])
    write(params, path)
    return params


def calibration_inputs(images, trained):
    """The first image with an outlier moves to the front, so that a calibration over few samples meets one too."""
    trace = []
    forward(trained, images[:, None], trace)
    first = int(np.argmax(trace[1][1].max((1, 2)) > OUTLIER / 5))
    order = [first, *(i for i in range(len(images)) if i != first)]
    return evaluation_inputs(images[order])


def evaluation_inputs(images):
    return {"image": images[:, None]}
