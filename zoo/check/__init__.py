"""The contract of a block, and its back ends beside the reference: zoo check."""
