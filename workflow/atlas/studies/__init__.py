"""Studies: the table of a study's SAEs, beside what was published."""
