"""What the figures of measures share."""
