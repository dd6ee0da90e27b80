"""Logs, metrics, traces and probes of the processes."""
