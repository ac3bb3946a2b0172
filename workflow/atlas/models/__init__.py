"""Models: prepare once, load anywhere, capture and replace activations at named hooks, audit before use."""
