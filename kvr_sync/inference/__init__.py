"""A mapping proposed from what a channel holds, for people to read, mend and use."""
