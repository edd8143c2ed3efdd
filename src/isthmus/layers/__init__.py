"""Layers: the parts that backbones, adapters and models are made of, each about one screen."""
