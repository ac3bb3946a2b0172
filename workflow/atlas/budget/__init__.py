"""Numbers of dictionaries by their training budget: one recipe, trained on several numbers of rows."""
