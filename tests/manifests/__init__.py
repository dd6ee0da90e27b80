"""Tests of the manifest builders."""
