"""Reference pages made from the source: what every key, block, task and measure is, from docstrings and the comments beside fields.

The source is read as text (ast, tokenize), never imported, so that a list starts at once; only a block's sizes need the ledger.
"""
