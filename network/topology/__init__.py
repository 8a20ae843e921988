"""Networks as one file describes them: validated, frozen, without ports, keys or anything else chosen at run time."""
