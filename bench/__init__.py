"""The harness: sweeps, workers, measurements, statistics and reports. Imports no framework."""
