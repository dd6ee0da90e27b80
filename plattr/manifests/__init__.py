"""Builders of Kubernetes manifests: pure functions, one file per kind, each returning one plain dict."""
