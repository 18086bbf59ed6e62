"""What is asked of finished files: audit, parity, predicted costs."""
