"""Files that people name: whose they are, how they are replaced, locked, known and appended to; where models lie."""
