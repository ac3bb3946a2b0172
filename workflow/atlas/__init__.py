"""SAE Atlas: sparse autoencoders with an audit before, nulls beside and an outcome after every number."""
