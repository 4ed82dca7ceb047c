"""Data sets from their addresses: download, checksum, unpacking."""
