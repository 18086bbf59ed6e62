"""Wires the verbs, one module a command."""
