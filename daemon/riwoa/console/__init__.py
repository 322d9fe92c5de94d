"""What a program says to a person: streams that cannot end it, what a terminal can show, progress of long work."""
