"""Profiles and recipes from TOML: names, aliases, and every error of a file at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgekd.errors import ConfigurationError
from edgekd.load import check_profile_file, dump_toml, load_profile, load_recipe, shipped_profiles
from edgekd.records import Budget, DeviceProfile, Recipe, StudentChoice

RPI4 = next(path for path in shipped_profiles() if path.stem == "rpi4")


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The rpi4 profile with pieces of its text replaced, as a file of its own."""
    text = RPI4.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"the rpi4 profile no longer holds {old!r}"
        text = text.replace(old, new)
    path = tmp_path / "board.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["rpi4", "RPI4", "raspberry-pi-4", "RaspberryPi4B", "raspberry_pi_4b", "Raspberry Pi 4"]
)
def test_a_profile_answers_to_its_aliases_in_any_case(name):
    assert load_profile(name).name == "rpi4"


def test_a_path_is_loaded_as_a_file(tmp_path):
    path = edited(tmp_path, ('name = "rpi4"', 'name = "my-board"'))
    assert load_profile(path).name == "my-board"
    assert load_profile(str(path)).name == "my-board"


def test_a_misspelt_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(ConfigurationError) as caught:
        load_profile("raspbery-pi-4")
    message = str(caught.value)
    assert "did you mean 'rpi4'?" in message
    for path in shipped_profiles():
        assert path.stem in message
    assert caught.value.exit_code == 3


def test_a_name_like_nothing_lists_all_without_a_suggestion():
    with pytest.raises(ConfigurationError) as caught:
        load_profile("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "jetson-orin-nano" in str(caught.value)


@pytest.mark.parametrize("name", ["jetson-nano", "JetsonNano", "nvidia-jetson-nano"])
def test_the_original_jetson_nano_is_refused_with_the_reason(name):
    with pytest.raises(ConfigurationError) as caught:
        load_profile(name)
    for reason in ("Python 3.6", "glibc", "jetson-orin-nano"):
        assert reason in str(caught.value)


def test_every_error_of_a_file_is_reported_at_once_each_with_its_line(tmp_path):
    path = edited(
        tmp_path,
        ("latency_p90_ms", "latency_p90_s"),
        ("clock_mhz = { value = 1800", "clock_mhz = { value = 1.8"),
        ("threads = 1\nruntime", "threads = 9\nruntime"),
        ('"macs.pointwise" = [268.0, 540.0]', '"macs.pointwise" = [540.0, 268.0]'),
        ('provenance = "prior"', 'provenance = "guessed"'),
        ("cores = { value = 4,", "cores = { value = 4, unit = 1,"),
    )
    problems = check_profile_file(path)
    text = "\n".join(problems)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "budget.latency_p90_s: unknown key; did you mean latency_p90_ms?" in text
    assert "soc.clock_mhz.value: is 1.8, must be greater than or equal to 50 MHz" in text
    assert "lower edge above the upper one: macs.pointwise = [540, 268]" in text
    assert "latency_models[0].provenance: is 'guessed'" in text
    assert "latency_models[1].provenance: is 'guessed'" in text
    assert "soc.cores.unit: unknown key; allowed here: source, value" in text
    line = next(number for number, line in enumerate(lines, 1) if line.startswith("clock_mhz"))
    assert f"board.toml:{line}: soc.clock_mhz" in text
    with pytest.raises(ConfigurationError) as caught:
        load_profile(path)
    for problem in problems:
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("threads = 1\nruntime", "threads = 9\nruntime", "threads = 9 exceeds soc.cores = 4"),
        ("threads = 1\nruntime", "threads = 0\nruntime", "must be greater than 0"),
        ("[1024, 2048, 4096, 8192]", "[1, 2, 4, 8]", "must be greater than or equal to 64 MiB"),
        ("clock_mhz = { value = 1800", "clock_mhz = { value = 1800000000", "less than or equal to 20000 MHz"),
        ("clock_mhz = { value = 1800", 'clock_mhz = { value = "fast"', "is 'fast', must be a valid number"),
        ("latency_p90_ms = 10.0", "latency_p90_ms = -1.0", "must be greater than 0 ms"),
        ("latency_p90_ms = 10.0", "latency_p50_ms = 10.0", "missing: ['latency_p90_ms']"),
        ("latency_p90_ms = 10.0", "latency_p90_ms = nan", "must be a finite number"),
        ("ram_mib_min = 700", "ram_mib_min = 700\nram_mib_max = 600", "is below ram_mib_min = 700"),
        ('device_tree_models = ["Raspberry Pi 4 Model B"]', "device_tree_models = []", "no board can ever match"),
        ("dense = { ms_per_mmac", "gemm = { ms_per_mmac", "unknown operator kind gemm"),
        ("overhead_ms = 0.03", "overhead_ms = -0.03", "must be greater than or equal to 0 ms"),
        ("confidence = 0.9\n", "confidence = 90\n", "must be less than or equal to 1"),
        ('measures = "temperature"', 'measures = "power"', "needs a grade"),
        ('kind = "thermal_zone"', 'kind = "thermometer"', "is 'thermometer', must be 'ina3221'"),
        ('name = "rpi4"', 'name = "Raspberry 4"', "match pattern"),
        ('"manylinux_2_28_aarch64"', '"aarch64"', "match pattern"),
        ("[budget]", "[budgets]", "budgets: unknown key; did you mean budget?"),
        ('name = "rpi4"', 'schema_version = 2\nname = "rpi4"', "schema_version: is 2, must be 1"),
    ],
)
def test_what_cannot_be_true_is_refused(tmp_path, old, new, expected):
    problems = check_profile_file(edited(tmp_path, (old, new)))
    assert any(expected in problem for problem in problems), problems


def test_a_source_is_part_of_a_fact(tmp_path):
    path = edited(
        tmp_path, ('cores = { value = 4, source = "Raspberry Pi documentation, Processors: BCM2711" }', "cores = 4")
    )
    assert any(
        "soc.cores: is 4, must be a table with the keys source, value" in one for one in check_profile_file(path)
    )


def test_broken_toml_names_line_and_column(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text('name = "x"\n[match\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"line 2, column 7"):
        load_profile(path)


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b'name = "\xff\xfe"\n')
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_profile(binary)
    with pytest.raises(ConfigurationError, match="is a directory"):
        load_profile(tmp_path)
    with pytest.raises(ConfigurationError, match="no such file"):
        load_profile(tmp_path / "absent.toml")
    with pytest.raises(ConfigurationError, match="no such file"):
        check_profile_file(tmp_path / "absent.toml")


@pytest.mark.parametrize("path", shipped_profiles(), ids=lambda path: path.stem)
def test_a_profile_survives_being_written_and_read(path):
    profile = load_profile(path)
    assert DeviceProfile.model_validate(tomllib.loads(dump_toml(profile))) == profile


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = Recipe(
        profile="rpi4",
        student=StudentChoice(space="ds-cnn", fixed={"width": 16}),
        budget=Budget(latency_p90_ms=2.5, accuracy_drop_max=0.02),
        seed=7,
    )
    path = tmp_path / "recipe.toml"
    path.write_text(dump_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_a_recipe_reports_every_error_with_the_nearest_key(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'profile = "rpi4"\nseeed = 3\n[distill.training]\nepochs = 0\nlearning_rates = 0.1\n'
        '[[distill.objectives]]\nkind = "hinton"\ntemprature = 2\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert "recipe.toml:2: seeed: unknown key; did you mean seed?" in message
    assert "recipe.toml:4: distill.training.epochs: is 0, must be greater than 0" in message
    assert "recipe.toml:5: distill.training.learning_rates: unknown key; did you mean learning_rate?" in message
    assert "distill.training.learning_rate: is missing" in message
    assert "recipe.toml:8: distill.objectives[0].temprature: unknown key; did you mean temperature?" in message
    assert "5 errors" in message
