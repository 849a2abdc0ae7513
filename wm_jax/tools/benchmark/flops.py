"""Floating-point operations of the models' matrix products, two for each multiplication and addition.

Biases, nonlinearities and the optimiser are left out: a few percent.
"""

from wm_jax.config.vaes import VaeConfig
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae.layers import DECODER_CHANNELS, ENCODER_CHANNELS, ENCODER_KERNEL, scaled_channels
from wm_jax.models.vae.paper import DECODER_KERNELS
from wm_jax.utils.sizes import SIDE


def encoding(config: VaeConfig) -> float:
    """One frame through V's encoder and both heads."""
    total, side, inputs, k = 0, SIDE, 3, ENCODER_KERNEL
    for channels in ENCODER_CHANNELS:
        side, outputs = (side - k) // 2 + 1, scaled_channels(channels, config)
        total += side * side * k * k * inputs * outputs
        inputs = outputs
    return 2.0 * (total + 2 * side * side * inputs * config.latent)


def decoding(config: VaeConfig) -> float:
    """One z through V's decoder."""
    inputs, side = 4 * scaled_channels(256, config), 1
    total = config.latent * inputs
    for k, channels in zip(DECODER_KERNELS, (*(scaled_channels(c, config) for c in DECODER_CHANNELS), 3), strict=True):
        total += side * side * k * k * inputs * channels
        inputs, side = channels, 2 * side - 2 + k
    return 2.0 * total


def vae_update(config: VaeConfig) -> float:
    """One frame of an update: forward, and twice that backward."""
    return 3 * (encoding(config) + decoding(config))


def memory_update(memory: MDNRNN) -> float:
    """One step of one sequence in an update."""
    hidden, inputs = memory.config.hidden, memory.latent.size + memory.action
    return 3 * 2.0 * hidden * (4 * (inputs + hidden) + memory.head.outputs)


def dreaming(memory: MDNRNN, controller_params: int) -> float:
    """One step of a dream: M's cell, what M predicts, and C."""
    hidden, inputs = memory.config.hidden, memory.latent.size + memory.action
    return 2.0 * (hidden * (4 * (inputs + hidden) + memory.head.outputs) + controller_params)


def playing(config: VaeConfig, memory: MDNRNN, controller_params: int) -> float:
    """One frame of one episode through V's encoder, C and M's cell."""
    hidden, inputs = memory.config.hidden, memory.latent.size + memory.action
    return encoding(config) + 2.0 * (4 * hidden * (inputs + hidden) + controller_params)
