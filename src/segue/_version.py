"""The version of segue, for the modules that cannot ask the package, which stands above them."""

__version__ = "0.1.0"
