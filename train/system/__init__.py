"""The machine and its files: start-up settings, environment, files that are replaced as a whole."""
