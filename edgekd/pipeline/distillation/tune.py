"""Which objective, and with which parameters: decided by short runs on the validation split."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekd.errors import ConfigurationError, MissingExtraError
from edgekd.pipeline.distillation.flags import objectives_of_kind
from edgekd.records import Distillation, Hard, Objective, Record, Tried, TuneSearch, record_of_kind
from edgekd.store import hash_inputs
from edgekd.tasks import Outputs
from edgekd.train.additions import Additions
from edgekd.train.examples import logits_of
from edgekd.train.metrics import gain_interval
from edgekd.train.regimes import Setting

logger = logging.getLogger(__name__)

CANDIDATES = ("hard", "hinton", "dkd", "dist", "logit_standardization")
SHORT = 4
"""A short run has a quarter of the epochs."""

Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Choice:
    """How short runs choose: one of each kind, or a search for so many minutes, kept in a file to go on from."""

    minutes: float | None = None
    search: TuneSearch = "bayes"
    storage: Path | None = None


class Chosen(Record):
    """What short runs chose, why, and all that was tried."""

    distill: Distillation
    reason: str
    tried: tuple[Tried, ...]


def choice_of(recipe: Distillation, storage: Path | None = None) -> Choice | None:
    """How the recipe wants its objectives chosen; None where it takes those that it names."""
    if recipe.choose == "given" and recipe.tune_minutes is None:
        return None
    return Choice(recipe.tune_minutes, recipe.tune_search, storage)


def require_tuner(choice: Choice | None) -> None:
    """Fail before anything is trained where what a search needs is missing.

    Raises:
        ConfigurationError: no time, or a file for the trials that cannot be written or holds something else.
        MissingExtraError: Optuna is not installed.
    """
    if choice is None or choice.minutes is None:
        return
    if choice.minutes <= 0:
        raise ConfigurationError(f"--tune-minutes {choice.minutes:g}: must be above 0")
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("optuna", "tune")
    if choice.storage is not None:
        _require_journal(choice.storage)


def _require_journal(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            first = file.readline()
    except OSError as error:
        raise ConfigurationError(f"--tune-file {path}: cannot be written: {error}") from error
    try:
        known = not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        known = False
    if not known:
        raise ConfigurationError(f"--tune-file {path}: holds no trials of an earlier run: name another file")


def choose(setting: Setting, choice: Choice, identity: str) -> Chosen:
    """The objectives by short runs on the validation split.

    Args:
        setting: what there is to learn from.
        choice: how.
        identity: of data and teacher, so that trials of other data are not taken for these.

    Raises:
        as `tune`.
    """
    if choice.minutes is None:
        return choose_objective(setting)
    return tune(setting, choice.minutes, search=choice.search, storage=choice.storage, identity=identity)


def choose_objective(setting: Setting, kinds: Sequence[str] = CANDIDATES) -> Chosen:
    """`--objective auto`: one short run of each kind; the best wins if it beats the labels alone beyond its noise.

    Where none does, the kind with the best validation accuracy is taken all the same if it is not below the labels
    alone; else the choice is not to distil. Either way the reason says so.
    """
    setting = replace(setting, checkpoints=None)
    logits, metric, validation = setting.teacher_logits(), setting.metric, setting.validation
    answers: dict[str, Tensor] = {}
    tried = []
    short = shortened(setting.recipe)
    for kind in meant_for(setting.outputs, kinds):
        student, objectives = setting.fresh_student(), objectives_of_kind(kind)
        trained = setting.learn(
            student, f"trying {kind}", objectives=objectives, teacher_logits=logits, schedule=short.training
        )
        answers[kind] = logits_of(student, validation.inputs, setting.device)
        tried.append(
            Tried(
                objectives=tuple(objective.kind for objective in objectives),
                learning_rate=short.training.learning_rate,
                parameters={},
                val_accuracy=metric.of_score(trained.validation_accuracy),
                epochs=trained.epochs,
            )
        )
    scores = {kind: metric.score(outputs, validation.labels) for kind, outputs in answers.items()}
    share = {kind: metric.of_score(score) for kind, score in scores.items()}
    best = max(scores, key=lambda kind: scores[kind])
    reason = f"{best} has the best validation {metric.words} after {short.training.epochs} epochs: {share[best]:.4f}"
    if best == "hard":
        reason += ": not to distil is the choice"
    elif "hard" in answers:
        low, high = gain_interval(metric, answers[best], answers["hard"], validation.labels)
        beyond = "beyond" if low > 0 else "within"
        reason += (
            f"; better than the labels alone by {scores[best] - scores['hard']:+.4f} [{low:+.4f}, {high:+.4f}], "
            f"{beyond} noise"
        )
    reason += f" ({', '.join(f'{kind} {value:.4f}' for kind, value in share.items())})"
    distill = setting.recipe.model_copy(update={"objectives": objectives_of_kind(best)})
    return Chosen(distill=distill, reason=reason, tried=tuple(tried))


def meant_for(outputs: Outputs, kinds: Sequence[str] = CANDIDATES) -> list[str]:
    """Those kinds that have a meaning for outputs of this kind."""
    records = {kind: record_of_kind(kind) for kind in kinds}
    return [kind for kind, record in records.items() if record and (outputs == "classes" or not record.classes_only)]


def shortened(recipe: Distillation) -> Distillation:
    """The recipe with a quarter of its epochs, at least three."""
    epochs = min(recipe.training.epochs, max(3, recipe.training.epochs // SHORT))
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})


def tune(
    setting: Setting,
    minutes: float,
    *,
    search: TuneSearch = "bayes",
    storage: Path | None = None,
    identity: str = "",
    most_trials: int | None = None,
) -> Chosen:
    """Search objective, soft weight, temperature and learning rate by short runs, as long as the time allows.

    Runs that fall behind the median of those before are cut short (Optuna's median pruner). The recipe's own
    objectives are the first trial, the labels alone the second; the best by validation accuracy wins.

    Args:
        setting: what there is to learn from.
        minutes: of wall-clock time; the run in progress at its end is finished.
        search: Bayesian (a tree-structured Parzen estimator), random, or a grid.
        storage: a file in which trials are kept, so that a later call goes on from them.
        identity: of data and teacher, so that trials of other data are not taken for these.
        most_trials: an upper bound on the trials of this call.

    Raises:
        MissingExtraError: Optuna is not installed.
        ConfigurationError: no time, or nothing was tried within it.
    """
    require_tuner(Choice(minutes))
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    setting = replace(setting, checkpoints=None)
    short, logits = shortened(setting.recipe), setting.teacher_logits()
    # How long to search changes no trial: a later run may take more time over the same ones.
    timeless = setting.recipe.model_copy(update={"tune_minutes": None})
    study = optuna.create_study(
        study_name=hash_inputs(identity=identity, recipe=timeless, seed=setting.seed)[:16],
        direction="maximize",
        sampler=_sampler(optuna, search, setting),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        storage=None if storage is None else _journal(optuna, storage),
        load_if_exists=True,
    )
    if not study.trials and search != "grid":
        for start in ({"kind": "hinton", "soft_weight": 0.7, "temperature": 3.0}, {"kind": "hard"}):
            study.enqueue_trial({**start, "learning_rate_factor": 1.0})

    def trial_accuracy(trial: Any) -> float:
        objectives, factor = suggested(trial, meant_for(setting.outputs))
        schedule = short.training.model_copy(update={"learning_rate": short.training.learning_rate * factor})

        def report(epoch: int, accuracy: float) -> None:
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        trained = setting.learn(
            setting.fresh_student(),
            f"trial {trial.number}",
            objectives=objectives,
            teacher_logits=logits,
            schedule=schedule,
            additions=Additions(on_epoch=report),
        )
        return trained.validation_accuracy

    started = time.monotonic()
    study.optimize(trial_accuracy, timeout=60 * minutes, n_trials=most_trials)
    return _chosen(optuna, study, setting, time.monotonic() - started)


def suggested(trial: Any, kinds: Sequence[str] = CANDIDATES) -> tuple[tuple[Objective, ...], float]:
    """The objectives of a trial, and the factor on the learning rate."""
    factor = trial.suggest_float("learning_rate_factor", 0.3, 3.0, log=True)
    kind = trial.suggest_categorical("kind", tuple(kinds))
    if kind == "hard":
        return (Hard(),), factor
    soft = trial.suggest_float("soft_weight", 0.1, 1.0)
    temperature = trial.suggest_float("temperature", 1.0, 8.0, log=True)
    record = record_of_kind(kind)
    assert record is not None
    return (
        Hard(weight=1 - soft),
        record.model_validate({"weight": soft, "temperature": temperature}),
    ), factor


def _sampler(optuna: Any, search: TuneSearch, setting: Setting) -> Any:
    seed = setting.seed
    if search == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search == "grid":
        grid = {
            "learning_rate_factor": [1.0],
            "kind": meant_for(setting.outputs),
            "soft_weight": [0.5, 0.9],
            "temperature": [1.0, 2.0, 4.0],
        }
        return optuna.samplers.GridSampler(grid, seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _journal(optuna: Any, path: Path) -> Any:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _chosen(optuna: Any, study: Any, setting: Setting, seconds: float) -> Chosen:
    recipe, metric = setting.recipe, setting.metric
    finished = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if not finished:
        raise ConfigurationError("--tune-minutes: no short run finished within the time: give it more")
    tried = []
    for trial in study.trials:
        if trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED):
            objectives, factor = suggested(optuna.trial.FixedTrial(trial.params))
            tried.append(
                Tried(
                    objectives=tuple(objective.kind for objective in objectives),
                    learning_rate=recipe.training.learning_rate * factor,
                    parameters=dict(trial.params),
                    val_accuracy=metric.of_score(trial.value) if trial in finished else None,
                    epochs=len(trial.intermediate_values),
                )
            )
    objectives, factor = suggested(optuna.trial.FixedTrial(study.best_trial.params))
    training = recipe.training.model_copy(update={"learning_rate": recipe.training.learning_rate * factor})
    best = metric.of_score(study.best_value)
    told = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in study.best_trial.params.items())  # fmt: skip
    reason = (
        f"the best of {len(tried)} short runs by validation {metric.words}, {best:.4f}: {told} "
        f"({len(tried) - len(finished)} cut short; {seconds:.0f} s)"
    )
    return Chosen(
        distill=recipe.model_copy(update={"objectives": objectives, "training": training}),
        reason=reason,
        tried=tuple(tried),
    )
