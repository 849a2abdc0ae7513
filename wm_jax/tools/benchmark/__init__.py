"""Throughput of every stage, measured beside PyTorch on the reader's own machine (`bin/benchmark`)."""
