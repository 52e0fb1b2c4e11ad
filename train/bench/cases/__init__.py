"""One file a family of operations; each has `cases()`, which names its cases without building them."""
