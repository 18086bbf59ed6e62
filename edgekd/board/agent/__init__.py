"""Runs on the board: Python 3.9+, standard library, numpy and the runtime; nothing else of edgekd.

The host packs these modules as one zip application, starts `python -I agent.pyz [--site DIR]`, writes one job as a
line of JSON to its standard input, and reads lines of JSON from its standard output. Closing standard input ends it.
"""
