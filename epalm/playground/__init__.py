"""The built-in world: generated media and tiny pretrained models, so that everything runs with nothing downloaded."""
