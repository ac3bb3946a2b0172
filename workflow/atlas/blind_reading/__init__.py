"""Reading by people: latents of SAEs and of random dictionaries, shuffled, contexts only; and what readers agree on."""
