"""The commands beside DVC, one file each."""
