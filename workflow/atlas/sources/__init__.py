"""Where models and text come from: hash-pinned wheels and hub repositories pinned to a commit."""
