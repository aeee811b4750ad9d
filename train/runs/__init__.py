"""Run folders: keys, checkpoints, listing, import and export."""
