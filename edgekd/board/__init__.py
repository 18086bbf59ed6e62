"""Sessions to a board, and what is done through them: provisioning, deployment, measuring."""
