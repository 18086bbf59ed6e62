import pytest

from edgekd.errors import ConfigurationError
from edgekd.pipeline.settings import budget_from_flags, resolve, with_task_schedules
from edgekd.records import Budget, Recipe, Training
from edgekd.tasks import load_task


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_go_over_the_recipe_and_that_over_the_profile(here):
    (here / "r.toml").write_text("profile = 'rpi4'\n[budget]\nlatency_p90_ms = 4\nfile_size_kib = 90\n")
    settings = resolve(None, here / "r.toml", None, budget_from_flags({"file_size_kib": 50.0}), None)
    assert settings.budget.constraints() == {"latency_p90_ms": 4, "peak_memory_mib": 32, "file_size_kib": 50}
    assert settings.budget_source == {
        "latency_p90_ms": "recipe",
        "peak_memory_mib": "profile rpi4",
        "file_size_kib": "flag",
    }


def test_paths_of_a_recipe_are_relative_to_it_and_those_of_flags_to_this_directory(here):
    (here / "deep").mkdir()
    (here / "deep/r.toml").write_text("[task]\nname = 'mine.py'\noptions = { a = 1 }\n")
    recipe = resolve("rpi4", here / "deep/r.toml", None, Budget(), None).recipe
    assert recipe.task.name == str(here / "deep/mine.py")
    assert recipe.task.options == {"a": 1}
    recipe = resolve("rpi4", here / "deep/r.toml", "other.py", Budget(), 7).recipe
    assert recipe.task.name == str(here / "other.py")
    assert recipe.task.options == {}
    assert recipe.seed == 7


def test_the_demo_is_the_default_and_a_board_must_be_named(here):
    assert resolve("rpi4", None, None, Budget(), None).recipe.task.name == "watch-gestures"
    with pytest.raises(ConfigurationError, match="which board"):
        resolve(None, None, None, Budget(), None)


def test_all_wrong_limits_are_named_at_once():
    with pytest.raises(ConfigurationError) as error:
        budget_from_flags({"accuracy_min": 85, "latency_p90_ms": -1})
    assert "--accuracy-min 85" in str(error.value)
    assert "--latency-p90-ms -1" in str(error.value)


def test_the_task_suggests_schedules_and_the_recipe_goes_over_them():
    task = load_task("watch-gestures", {})
    own = Training(epochs=3, learning_rate=0.1)
    assert with_task_schedules(Recipe(), task).teacher == task.teacher.training
    assert with_task_schedules(Recipe(teacher=own), task).teacher == own
