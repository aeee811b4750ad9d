"""The commands of stage 3, and the page of `epalm serve`."""
