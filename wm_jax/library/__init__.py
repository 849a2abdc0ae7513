"""What programs that import wm_jax are given (`wm_jax.__all__`): few names over what the commands use, too."""
