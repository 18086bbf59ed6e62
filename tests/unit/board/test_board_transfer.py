"""Tar streams and quoting."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.board.connection.ssh import command_line
from edgekd.board.connection.transfer import SUMS_NAME, sha256_file, tar_stream
from edgekd.errors import BoardError


def test_tar_stream_is_a_tar_of_the_files_and_their_sums(tmp_path):
    contents = {"a.txt": b"hello", "deep/" + "d" * 90 + "/" + "n" * 90: bytes(1000), "empty": b"", "block": bytes(512)}
    files = {}
    for index, (name, data) in enumerate(contents.items()):
        files[name] = tmp_path / str(index)
        files[name].write_bytes(data)
    packed = io.BytesIO(b"".join(tar_stream(files)))
    with tarfile.open(fileobj=packed) as archive:
        assert archive.getnames() == [*contents, SUMS_NAME]
        for name, data in contents.items():
            member = archive.extractfile(name)
            assert member is not None
            assert member.read() == data
        listing = archive.extractfile(SUMS_NAME)
        assert listing is not None
        assert listing.read().decode() == "".join(f"{sha256_file(path)}  {name}\n" for name, path in files.items())


def test_a_file_that_shrinks_while_it_is_sent(tmp_path):
    path = tmp_path / "shrinking"
    path.write_bytes(bytes(2**20))
    stream = tar_stream({"x": path})
    next(stream), next(stream)
    path.write_bytes(b"")
    with pytest.raises(BoardError, match="shrank"):
        list(stream)


SHELLS = [name for name in ("sh", "bash", "dash", "zsh", "fish", "tcsh") if shutil.which(name)]


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25, deadline=None)
@given(word=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_a_word_passes_a_login_shell_unharmed(shell, word):
    line = command_line("token", ["printf", "%s|", word, "second"])
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == f"\ntoken\n{word}|second|"


def test_the_wrapper_marks_start_and_end():
    line = command_line("token", ["sh", "-c", "echo out; exit 5"])
    done = subprocess.run(["sh", "-c", "echo banner; " + line], capture_output=True, text=True, check=False)
    assert done.stdout == "banner\n\ntoken\nout\n"
    assert done.stderr.endswith("\ntoken exit 5\n")
    assert done.returncode == 5
