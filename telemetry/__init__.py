"""Logs, metrics, traces and probes of Plattr's processes."""
