"""An experiment carried out: worker processes, run folders, progress, collected results."""
