"""Reaching a board: sessions over SSH or here, and moving files."""
