"""Games that run on the host's cores: pools of environments behind one contract (`pool.py`)."""
