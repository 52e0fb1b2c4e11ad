"""Pattern to model: embedding, inserted tokens, the residual stack, the head; generation."""
