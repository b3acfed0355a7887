"""The training loop that the three models share."""
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def glorot(rng, *shape):
    """A weight [..., in, out] of the usual random start."""
    return jnp.asarray(rng.normal(0, np.sqrt(2 / (shape[-2] + shape[-1])), shape), jnp.float32)


def fit(logits_of, params, images, labels, prepare, epochs, rate, batch=64, seed=0):
    """Adam with a cosine schedule. `prepare(images, rng)` makes one epoch's inputs from the training images."""
    steps = epochs * (len(images) // batch)
    schedule = optax.warmup_cosine_decay_schedule(0, rate, steps // 20, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, x, y):
        loss, gradient = jax.value_and_grad(lambda p: cross_entropy(logits_of(p, x), y))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    rng, start = np.random.default_rng(seed), time.time()
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        inputs, losses = prepare(images, rng), []
        for i in range(0, len(order) - batch + 1, batch):
            chosen = order[i:i + batch]
            params, state, loss = step(params, state, inputs[chosen], labels[chosen])
            losses.append(loss)
        print(f"  epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {time.time() - start:.0f} s", flush=True)
    return params
