"""Files of weights: what is none is refused by name, whatever is wrong with it, wherever it is read."""

import io
import pickle
import random
import re

import pytest
import torch
from torch import nn

from edgekd.errors import BuildError, ConfigurationError, EdgekdError
from edgekd.nn.weights import load_weights
from edgekd.train import checkpoint


def build():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def written(state, zipped=True):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


STATE = build().state_dict()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", r"not torch weights: damaged, or not written by torch.save \(EOFError\)"),
        (b"hello world, this is text\n", "not torch weights"),
        (b"PK\x03\x04 cut short", "not torch weights"),
        (b"\x80\x02garbage", "not torch weights"),
        (written(STATE)[:500], "not torch weights"),
        (written(STATE, zipped=False)[:500], "not torch weights"),
        (pickle.dumps(STATE), "not torch weights"),
        (written(build()), "holds an object of torch.nn.modules.container.Sequential, .* save model.state_dict"),
        (written([1, 2]), "it holds a list, not a state dict"),
        (written({"other": torch.zeros(1)}), r"do not fit the teacher: Missing key\(s\) .*0.weight"),
        (written(nn.Linear(3, 5).state_dict()), "do not fit the teacher"),
        (written({**STATE, "0.weight": torch.zeros(5, 3)}), "do not fit the teacher: size mismatch for 0.weight"),
        (written({**STATE, "0.weight": 5}), "do not fit the teacher"),
        (written({1: torch.zeros(1)}), "do not fit the teacher"),
    ],
)
@pytest.mark.parametrize("failure", [ConfigurationError, BuildError])
def test_what_is_no_file_of_these_weights_is_named_with_its_cause(tmp_path, data, cause, failure):
    path = tmp_path / "t.pt"
    path.write_bytes(data)
    with pytest.raises(failure, match=f"^teacher {re.escape(str(path))}: .*{cause}") as said:
        load_weights(build(), path, "teacher", "the teacher", failure)
    assert "\n" not in str(said.value)
    assert "weights_only" not in str(said.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_byte_is_wrong_the_file_is_refused_or_read(tmp_path, zipped):
    path, draw, whole, refused = tmp_path / "t.pt", random.Random(0), written(STATE, zipped), 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 3, 10))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(bytes(data))
        try:
            load_weights(build(), path, "teacher", "the teacher")
        except EdgekdError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_that_was_saved_beside_other_things_is_found(tmp_path, key):
    path, loaded = tmp_path / "t.pt", build()
    path.write_bytes(written({"epoch": 3, key: STATE}))
    load_weights(loaded, path, "teacher", "the teacher")
    torch.testing.assert_close(loaded.state_dict(), STATE)


@pytest.mark.parametrize("data", [b"text", written([1]), written(STATE)[:500]])
def test_a_damaged_checkpoint_is_a_build_error_that_says_what_to_do(tmp_path, data):
    path = tmp_path / "student.ckpt"
    path.write_bytes(data)
    with pytest.raises(BuildError, match="student.ckpt: not torch weights: .*: remove it to start over"):
        checkpoint.load(path, "identity")
