"""nn.Modules under one contract: one file a block, and the file's name is its `type:`. `ls blocks/` is the catalogue."""
