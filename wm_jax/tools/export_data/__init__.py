"""A run's replays as files that others read."""
