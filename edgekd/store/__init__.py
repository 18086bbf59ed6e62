"""The run directory, which alone knows what its files are called."""

from edgekd.store.atomic import write_bytes, write_text, writing, writing_folder
from edgekd.store.hashing import hash_file, hash_inputs
from edgekd.store.run_directory import Clock, RunDirectory, RunIdentity, utc_now

__all__ = [
    "Clock",
    "RunDirectory",
    "RunIdentity",
    "hash_file",
    "hash_inputs",
    "utc_now",
    "write_bytes",
    "write_text",
    "writing",
    "writing_folder",
]
