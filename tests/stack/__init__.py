"""Tests of the local platform itself."""
