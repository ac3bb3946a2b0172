"""The atlas: static pages from studies to single latents, which need no server, no network and no build step."""
