"""`edgekd fit`: from a budget to the report of a run."""
