"""Child processes: how they start, are asked, watched and ended."""
