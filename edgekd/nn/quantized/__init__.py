"""Fake-quantized networks: traced from any torch module, trained with an ordinary loop, then written to files.

Nothing is imported here, so that `network`, plain data that the converters read, comes without torch.
"""
