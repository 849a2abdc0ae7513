"""Recordings from elsewhere as a run's replays."""
