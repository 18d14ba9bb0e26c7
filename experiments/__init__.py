"""Launches: absl flags in, a library call, a record out."""
