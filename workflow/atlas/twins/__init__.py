"""What an SAE has learnt that its twins, trained nulls, have not."""
