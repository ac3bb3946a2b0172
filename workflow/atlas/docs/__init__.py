"""Tables of the pages in docs/, made from results that are kept beside them with the machine they were made on."""
