"""An experiment's YAML and what one run is, read strictly into typed configs."""
