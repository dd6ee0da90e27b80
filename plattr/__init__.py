"""Plattr's pure domain: no network, no clock, no environment."""
