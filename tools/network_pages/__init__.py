"""The pages of the networks in docs/networks, their drawings, and the table of results: make docs."""
