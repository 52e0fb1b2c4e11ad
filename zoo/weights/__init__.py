"""Weights in and out of .safetensors, and from one model into another."""
