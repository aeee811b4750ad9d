"""epalm: a frozen language model that sees, watches and listens (eP-ALM, ICCV 2023)."""

__version__ = "0.1.0"
