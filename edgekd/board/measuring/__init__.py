"""One measurement: its passes, its agent, and whether the board was in a state to be measured."""
