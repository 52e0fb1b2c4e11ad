"""What families of checkpoints share."""
