"""The networks, written so that ``torch.jit.script`` gives graphs bound to no dtype or device."""
