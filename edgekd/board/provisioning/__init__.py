"""Bringing a board what it lacks: bundles of wheels, made here and unpacked there."""
