"""In which order the windows of a group are filled, and how far each SAE may go with those at hand."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from atlas.activations.plan import Window


@dataclass(frozen=True)
class WindowUse:
    """The windows that one SAE draws from: of each the first step and the one after the last. `steps` is its length."""

    use: Mapping[Window, tuple[int, int]]
    steps: int

    def reach(self, step: int, at_hand: Collection[Window]) -> int:
        """Return the first step that cannot be made with the windows at hand; `steps` where all can."""
        missing = [first for window, (first, end) in self.use.items() if end > step and window not in at_hand]
        return max(step, min(missing, default=self.steps))

    def needs(self, window: Window, step: int) -> bool:
        """Return whether a step from `step` on draws from the window."""
        return window in self.use and self.use[window][1] > step


def order_of_windows(passages: Sequence[WindowUse]) -> list[Window]:
    """Order the windows by when they are first needed: the share of its steps that an SAE has made by then."""
    begins: dict[Window, float] = {}
    for passage in passages:
        for window, (first, _) in passage.use.items():
            begins[window] = min(begins.get(window, 1.0), first / passage.steps)
    return sorted(begins, key=lambda window: (begins[window], window))


def next_window(
    order: Sequence[Window], passages: Sequence[WindowUse], steps: Sequence[int], at_hand: Collection[Window]
) -> Window | None:
    """Return the window to fill next: the first that is not at hand and that some SAE still needs."""
    for window in order:
        if window not in at_hand and needed(window, passages, steps):
            return window
    return None


def needed(window: Window, passages: Sequence[WindowUse], steps: Sequence[int]) -> bool:
    """Return whether any SAE, each at its step, has still to draw from a window."""
    return any(passage.needs(window, step) for passage, step in zip(passages, steps, strict=True))


def most_at_hand(passages: Sequence[WindowUse], sizes: Mapping[Window, int], steps: Sequence[int]) -> int:
    """Compute the largest sum of sizes of windows that are at hand at once, from these steps to the end."""
    order, at_hand, largest, steps = order_of_windows(passages), set(), 0, list(steps)
    while (window := next_window(order, passages, steps, at_hand)) is not None:
        at_hand.add(window)
        largest = max(largest, sum(sizes[each] for each in at_hand))
        steps = [passage.reach(step, at_hand) for passage, step in zip(passages, steps, strict=True)]
        at_hand = {each for each in at_hand if needed(each, passages, steps)}
    return largest
