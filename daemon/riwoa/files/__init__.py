"""Files that people name: whose they are, how they are replaced, locked and recognised; where models lie."""
