"""Auto-encoders with one contract; `make_vae` makes the one that the settings name."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from wm_jax.config.vaes import CustomVaeConfig, VaeConfig
from wm_jax.models.vae.aae import Aae
from wm_jax.models.vae.beta_tc import BetaTc
from wm_jax.models.vae.categorical import Categorical
from wm_jax.models.vae.check import check_contract
from wm_jax.models.vae.ciwae import Ciwae
from wm_jax.models.vae.conditional import Conditional
from wm_jax.models.vae.contract import DEFAULT_OBJECTIVE, Batch, Metrics, Objective, Update, Vae
from wm_jax.models.vae.dfc import Dfc
from wm_jax.models.vae.dip import Dip
from wm_jax.models.vae.dreamer import Dreamer
from wm_jax.models.vae.examples import Examples
from wm_jax.models.vae.factor import Factor
from wm_jax.models.vae.fsq import Fsq
from wm_jax.models.vae.gamma import GammaVae
from wm_jax.models.vae.hierarchical import Hierarchical
from wm_jax.models.vae.iaf import Iaf
from wm_jax.models.vae.info import Info
from wm_jax.models.vae.iwae import Iwae
from wm_jax.models.vae.joint import JointVae
from wm_jax.models.vae.ladder import Ladder
from wm_jax.models.vae.logcosh import LogCosh
from wm_jax.models.vae.miwae import Miwae
from wm_jax.models.vae.ms_ssim import MsSsim
from wm_jax.models.vae.piwae import Piwae
from wm_jax.models.vae.rae import Rae
from wm_jax.models.vae.swae import Swae
from wm_jax.models.vae.two_stage import TwoStage
from wm_jax.models.vae.vae_gan import VaeGan
from wm_jax.models.vae.vamp import Vamp
from wm_jax.models.vae.vanilla import Vanilla
from wm_jax.models.vae.vq import Vq
from wm_jax.models.vae.wae import Wae
from wm_jax.models.variables import value_and_grad
from wm_jax.utils.errors import UserError
from wm_jax.utils.user_classes import make_custom

__all__ = ["Batch", "Examples", "Objective", "Update", "Vae", "gradient_of", "loss_and_grad", "make_vae"]


PLAIN = Examples()
"""No noise, and every pixel weighs the same."""
CLASSES: dict[str, Callable[[Any, nnx.Rngs], Vae]] = {
    "vanilla": Vanilla,
    "beta_tc": BetaTc,
    "factor": Factor,
    "dip": Dip,
    "info": Info,
    "wae": Wae,
    "swae": Swae,
    "iwae": Iwae,
    "miwae": Miwae,
    "piwae": Piwae,
    "ciwae": Ciwae,
    "vamp": Vamp,
    "iaf": Iaf,
    "gamma": GammaVae,
    "vq": Vq,
    "fsq": Fsq,
    "categorical": Categorical,
    "joint": JointVae,
    "dreamer": Dreamer,
    "logcosh": LogCosh,
    "ms_ssim": MsSsim,
    "dfc": Dfc,
    "aae": Aae,
    "vae_gan": VaeGan,
    "hierarchical": Hierarchical,
    "ladder": Ladder,
    "two_stage": TwoStage,
    "rae": Rae,
    "conditional": Conditional,
}
"""The value of `vae.variant` -> the auto-encoder's class, which is made from (its settings, rngs).

`config.vaes.VARIANTS` has the same keys in the same order (tests/test_variants.py); `config` cannot import these
classes, which need JAX. A class has its variant's name; GammaVae and JointVae end in Vae because `models.latents` has
kinds of latents called Gamma and Joint.
"""


def make_vae(config: VaeConfig, rngs: nnx.Rngs) -> Vae:
    """The auto-encoder of `config.variant`, an NNX module with fresh weights.

    Raises:
      UserError: the settings do not fit together; or a custom class does not make a `Vae` that keeps the contract.
    """
    if not isinstance(config, CustomVaeConfig):
        return CLASSES[config.variant](config, rngs)
    option = f"vae.variant {config.variant}"
    vae = make_custom(config.variant, option, config, rngs, **config.options)
    if not isinstance(vae, Vae):
        raise UserError(
            f"{option}: it makes {type(vae).__name__}, no wm_jax.models.vae.Vae; let the class inherit from it"
        )
    check_contract(vae, option)
    return vae


def loss_and_grad(
    graphdef: nnx.GraphDef,
    variables: Any,
    batch: Batch,
    update: Update,
    objective: Objective = DEFAULT_OBJECTIVE,
) -> tuple[Metrics, Any, Any]:
    """A training loss and its gradient; to be called inside `jax.jit`.

    Args:
      graphdef, variables: from `nnx.split(make_vae(...))`.
      objective: one of the auto-encoder's.

    Returns:
      (metrics, gradients of the parameters that the objective trains, other variables after the update): see
      `models.variables`.
    """
    _, metrics, gradients, others = value_and_grad(
        graphdef, variables, lambda vae: objective.of(vae)(batch, update), objective.learned
    )
    return metrics, gradients, others


def gradient_of(
    graphdef: nnx.GraphDef, objective: Objective = DEFAULT_OBJECTIVE, data_size: int = 0, examples: Examples = PLAIN
) -> Callable[..., Any]:
    """The gradient of one of the losses, in the form that the training loop takes.

    Args:
      graphdef: from `nnx.split(make_vae(...))`.
      objective: one of the auto-encoder's.
      data_size: see `Update`.
      examples: makes the loss's batches of the loop's.

    Returns:
      A `training.task.Gradient`: (variables, batch, carry, key, step) -> (metrics, carry, gradients, other variables).
    """

    def gradient(params: Any, raw: Any, carry: Any, key: jax.Array, step: jax.Array) -> tuple[Any, Any, Any, Any]:
        noise_key, loss_key = jax.random.split(key)
        batch, update = examples.batch(raw, noise_key), Update(loss_key, step, data_size)
        metrics, gradients, others = loss_and_grad(graphdef, params, batch, update, objective)
        return metrics, carry, gradients, others

    return gradient
