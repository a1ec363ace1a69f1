"""What every window for a run and its review needs, whatever draws it: no Qt, no web, no torch."""
