"""Stage 1: media file → frames or filter bank → frozen encoder → rows in the cache."""
