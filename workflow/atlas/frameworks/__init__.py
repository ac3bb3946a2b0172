"""Frameworks side by side: the same rows and recipe trained by ours and by peers, judged by one evaluation."""
