"""Teaching a student: `edgekd distill`, and what `edgekd fit` teaches with."""
