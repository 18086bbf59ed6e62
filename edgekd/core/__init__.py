"""Pure decisions: no files, no clock, no network, no torch."""
