"""The blocks, nn.Modules under one contract: a file a block, named by its `type:`, beside the few files that blocks share."""
