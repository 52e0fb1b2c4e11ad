"""The training of one run: Lightning's Trainer around our step, checkpoints, metrics."""
