"""Claims: an experiment with a published finding, statements about its results, and a verdict: holds, fails or undecided."""
