"""Pictures and pages of what a network does."""
