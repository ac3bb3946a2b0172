"""The configuration: typed sections, studies expanded to rows, errors that name file, row, key and value."""
