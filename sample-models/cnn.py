"""digits_cnn: a small MobileNet-like network whose first depthwise layer has a wide spread between its channels."""
import jax
import jax.numpy as jnp
import numpy as np

from digits import shift_randomly
from fit import fit, glorot
from graph import Graph

STEM, MIDDLE, TOP = 32, 48, 64
EPSILON = 1e-3  # of batch normalisation; as in MobileNet, it bounds the weights of a channel that hardly varies
SPREAD = 100.0  # the largest channel's weights are this many times larger than trained
LAYERS = ("conv1", "depthwise1", "pointwise1", "depthwise2", "pointwise2")


def prepare(images, rng):
    return shift_randomly(images, rng)[:, None]


def start(rng):
    """Weights as ONNX keeps them: [out, in / groups, height, width]."""
    shapes = {"conv1": (STEM, 1, 3, 3), "depthwise1": (STEM, 1, 3, 3), "pointwise1": (MIDDLE, STEM, 1, 1),
              "depthwise2": (MIDDLE, 1, 3, 3), "pointwise2": (TOP, MIDDLE, 1, 1)}
    params = {}
    for name, shape in shapes.items():
        weight = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        params[name] = {"w": jnp.asarray(weight, jnp.float32), "gamma": jnp.ones(shape[0]), "beta": jnp.zeros(shape[0])}
    return params | {"head": {"w": glorot(rng, TOP, 10), "b": jnp.zeros(10)}}


def convolve(name, weight, x):
    """The bare convolution of a layer. Depthwise is written as nine shifted products: far faster on a CPU in JAX."""
    if name.startswith("pointwise"):
        return jnp.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x)
    if name == "conv1":
        return jax.lax.conv_general_dilated(x, weight, (2, 2), ((1, 1), (1, 1)))
    height, width = x.shape[2:]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(weight[:, 0, i, j][:, None, None] * padded[:, :, i:i + height, j:j + width]
               for i in range(3) for j in range(3))


def pool(x):
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))


def forward(params, x, layer):
    """The network; `layer(name, x)` is one convolution with whatever normalises it, before its ReLU."""
    for name in LAYERS:
        x = jax.nn.relu(layer(name, x))
        if name == "pointwise1":
            x = pool(x)
    return x.mean((2, 3)) @ params["head"]["w"] + params["head"]["b"]


def train_logits(params, x, moments=None):
    """With batch normalisation over the batch; `moments` collects what each layer saw."""
    def layer(name, x):
        p, y = params[name], convolve(name, params[name]["w"], x)
        mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3))
        if moments is not None:
            moments[name] = (mean, variance)
        factor = p["gamma"] / jnp.sqrt(variance + EPSILON)
        return y * factor[:, None, None] + (p["beta"] - mean * factor)[:, None, None]
    return forward(params, x, layer)


def fold(params, x):
    """Batch normalisation folded into weights and biases, with the moments over x."""
    moments, folded = {}, {"head": {k: np.asarray(v, np.float64) for k, v in params["head"].items()}}
    train_logits(params, x, moments)
    for name in LAYERS:
        mean, variance = (np.asarray(m, np.float64) for m in moments[name])
        p = {k: np.asarray(v, np.float64) for k, v in params[name].items()}
        factor = p["gamma"] / np.sqrt(variance + EPSILON)
        folded[name] = {"w": p["w"] * factor[:, None, None, None], "b": p["beta"] - mean * factor}
    return folded


def channel_sensitivity(folded, x):
    """How much the logits change when one channel between conv1 and depthwise1 is rounded to 16 levels."""
    @jax.jit
    def run(x, channel):
        def layer(name, x):
            if name == "depthwise1":
                step = x.max() / 15
                rounded = jnp.round(x / step) * step
                x = jnp.where((jnp.arange(STEM) == channel)[:, None, None], rounded, x)
            return convolve(name, folded[name]["w"], x) + folded[name]["b"][:, None, None]
        return forward(folded, x, layer)

    whole = run(x, -1)
    return np.array([float(jnp.square(run(x, channel) - whole).sum()) for channel in range(STEM)])


def spread_channels(folded, x):
    """Divide channels of conv1 by s and multiply the same channels of depthwise1 by s; exact, for relu(a / s) * s = relu(a).

    Batch normalisation does this to real networks: a channel with little variance gets large weights when it is folded.
    The wider the spread, the fewer of the 256 levels a channel has between the two layers, which per-channel weights can't
    help. So the channels that suffer least get the largest s, and most stay near 1.
    """
    rank = np.argsort(np.argsort(-channel_sensitivity(folded, x)))
    s = SPREAD ** ((rank / (STEM - 1)) ** 8)
    conv1, depthwise = folded["conv1"], folded["depthwise1"]
    return folded | {"conv1": {"w": conv1["w"] / s[:, None, None, None], "b": conv1["b"] / s},
                     "depthwise1": {"w": depthwise["w"] * s[:, None, None, None], "b": depthwise["b"]}}


def write(folded, path):
    graph, value = Graph("digits_cnn", "image", [1, 28, 28]), "image"
    for name in LAYERS:
        weight, size = folded[name]["w"], folded[name]["w"].shape[2]
        value = graph.add("Conv", name, value, graph.weight(f"{name}.weight", weight), graph.weight(f"{name}.bias", folded[name]["b"]),
                          kernel_shape=[size, size], pads=[size // 2] * 4, strides=[2, 2] if name == "conv1" else [1, 1],
                          group=len(weight) if name.startswith("depthwise") else 1)
        value = graph.add("Relu", f"{name}.relu", value)
        if name == "pointwise1":
            value = graph.add("MaxPool", "pool1", value, kernel_shape=[2, 2], strides=[2, 2])
    value = graph.add("Flatten", "flatten", graph.add("GlobalAveragePool", "pool2", value), axis=1)
    graph.gemm("head", value, folded["head"]["w"], folded["head"]["b"], output="logits")
    graph.save(path, "Handwritten digits, depthwise separable; batch normalisation folded")


def build(images, labels, path, epochs):
    params = fit(train_logits, start(np.random.default_rng(1)), images, labels, prepare, epochs, 6e-3)
    x = images[:2000, None]
    write(spread_channels(fold(params, x), x), path)


def calibration_inputs(images, trained):
    return evaluation_inputs(images)


def evaluation_inputs(images):
    return {"image": images[:, None]}
