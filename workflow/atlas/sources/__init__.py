"""Sources of models and text: hash-pinned wheels and hub repositories pinned to a commit."""
