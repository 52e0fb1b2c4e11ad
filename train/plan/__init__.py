"""The plan of an experiment: every run decided before anything is trained."""
