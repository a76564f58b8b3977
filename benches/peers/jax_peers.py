"""optax under jit: a whole step is one compiled function, and reuses parameters and state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from worker import D0, GROWING, LR, WEIGHT_DECAY, Case


def rate(count):
    """1 while the estimate grows, then LR."""
    return jnp.where(count < GROWING, 1.0, LR)


OPTIMIZERS = {
    "optax_adamw": lambda: optax.adamw(LR, weight_decay=WEIGHT_DECAY),
    "optax_prodigy": lambda: contrib.prodigy(rate, estim_lr0=D0),
    "optax_dadapt_adamw": lambda: contrib.dadapt_adamw(rate, estim_lr0=D0),
}


class JaxCase(Case):
    """A list of arrays and the optimizer's state, which each step replaces."""

    def __init__(self, name, lens):
        super().__init__(lens)
        self.g = [[jnp.array(g) for g in gradients] for gradients in self.g]
        self.p = [jnp.array(p) for p in self.p]
        transformation = OPTIMIZERS[name]()
        # Copied: Prodigy's state has the parameters in it, which can be given away only once.
        self.state = jax.tree.map(jnp.copy, transformation.init(self.p))

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(p, state, g):
            updates, state = transformation.update(g, state, p)
            return optax.apply_updates(p, updates), state

        self.jitted = step
        self.given = None

    def prepare(self, which):
        self.given = self.g[which]

    def step(self):
        self.p, self.state = jax.block_until_ready(self.jitted(self.p, self.state, self.given))

    def first(self):
        return np.array(self.p[0][:1000])

    def note(self):
        d = getattr(self.state, "estim_lr", None)
        return "" if d is None else f"d {float(d):.3g}"


def make(name, lens):
    """The case of that name, `_tuned` after it or not."""
    return JaxCase(name.removesuffix("_tuned"), lens)
