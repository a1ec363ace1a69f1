"""The same review in a browser: Slicer's scene and views without its desktop.  No Qt, no torch."""
