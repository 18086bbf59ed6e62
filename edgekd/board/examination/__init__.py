"""Looking a board over."""
