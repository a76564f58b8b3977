"""Version counters: autograd must learn that the library has written parameters."""

import torch

INCREMENT = getattr(torch._C, "_increment_version", None)


def takes_lists():
    """Whether PyTorch bumps many tensors in one call."""
    try:
        INCREMENT([torch.zeros(0)])
    except (TypeError, RuntimeError):
        return False
    return True


MANY = INCREMENT is not None and takes_lists()


def handle(p):
    """A view without elements, which shares the version counter: what writes it bumps that."""
    return p.detach().as_strided((0,), (1,))


class Versions:
    """The counters of the parameters that are stepped where they lie."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.handles = None if INCREMENT else [handle(p) for p in parameters]

    def bump(self, updated, all_of_them):
        """Bumps those of entries, and with `all_of_them` these parameters' too."""
        others = [entry.p for entry in updated]
        parameters = self.parameters if all_of_them else []
        if MANY:
            INCREMENT(parameters + others)
        elif INCREMENT:
            for p in parameters + others:
                INCREMENT(p)
        else:
            # Before PyTorch 2.1 there is nothing but to write. (The call takes no empty list.)
            handles = (self.handles if all_of_them else []) + [handle(p) for p in others]
            if handles:
                torch._foreach_zero_(handles)
