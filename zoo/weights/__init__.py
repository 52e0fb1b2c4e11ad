"""Weights read from and written to .safetensors files, and taken over from one model into another."""
