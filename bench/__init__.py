"""Benchmarks. They report ratios that are measured in one run, and are never tests with a time limit."""
