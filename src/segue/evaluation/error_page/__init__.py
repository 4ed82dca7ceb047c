"""A page of HTML that shows where a network errs."""
