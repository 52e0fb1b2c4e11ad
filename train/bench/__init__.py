"""`zoo bench`: our kernels beside what a user would pick instead, as ratios measured in one run."""
