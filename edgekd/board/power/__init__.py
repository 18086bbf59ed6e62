"""Power meters, one a file with two functions: `find` says what is there, `reader` gives a function that reads it.

All but `external`, `replay` and `host_clock` run on the board, inside the agent: Python 3.9, standard library, nothing
of edgekd.
"""
