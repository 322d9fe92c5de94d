"""One run: the loop of generations, and what it needs to be continued after a kill."""
