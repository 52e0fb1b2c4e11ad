"""A model's YAML: the schema, the pattern language, blocks, inserted tokens."""
