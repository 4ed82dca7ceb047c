"""Data that are drawn: street scenes and cells, with exact labels and no download."""
