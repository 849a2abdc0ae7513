"""World Models (Ha & Schmidhuber 2018) in JAX: V, M and C on real games."""

__version__ = "0.1.0"
