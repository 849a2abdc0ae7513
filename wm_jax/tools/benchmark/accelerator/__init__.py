"""One report of all that is to be known of an accelerator: `bin/benchmark --accelerator-report OUT`.

`report.py` takes the parts in their order; each of the other files is one part, or what all share. Nothing that is
imported here needs EnvPool, Gymnasium, a C compiler or a network: see `wheels.py`.
"""
