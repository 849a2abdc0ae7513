"""The baseline: the same models in PyTorch, tuned by an expert and as users write it. Needs the extra `bench`."""
