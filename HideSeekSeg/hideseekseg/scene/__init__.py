"""Slicer's scene (MRML): what is read from it and what is put into it.  No Qt, no torch."""
