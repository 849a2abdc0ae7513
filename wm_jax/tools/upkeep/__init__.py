"""What is done to replays that are there: `bin/collect verify`, `bin/collect repair`."""
