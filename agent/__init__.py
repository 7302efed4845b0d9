"""The node agent: the only code that writes steering, on every target. Standard library, Python 3.8."""
