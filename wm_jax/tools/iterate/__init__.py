"""Iterated training: the agent plays, V and M learn from what it saw, and it learns on with them."""
