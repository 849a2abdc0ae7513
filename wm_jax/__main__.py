"""`python -m wm_jax COMMAND`: what `bin/COMMAND` runs."""

from wm_jax.utils.process import die_on_ctrl_c

die_on_ctrl_c()  # before the imports below

import sys  # noqa: E402

from wm_jax.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
