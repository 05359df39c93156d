"""The drop-in for web2py, and what is needed around it."""
