import pytest
from pydantic import ValidationError

from schemas.fine_tuning import FineTuningJob, FineTuningJobCreate
from schemas.jobs import StageName, stages_to_run
from schemas.requests import (
    ALL_STAGES,
    METHOD_TYPES,
    DefenseJobCreate,
    DispHyperparameters,
    Evaluation,
    SuccessMatcher,
)

FILE = "file_" + "0" * 32
SUCCESS = SuccessMatcher(phrases=["I cannot help"])


@pytest.mark.parametrize(
    "fields",
    [{"triggered_file": FILE, "success": SUCCESS}, {"clean_file": FILE}, {}],
)
def test_an_evaluation_is_of_an_attack_a_clean_set_or_nothing(fields):
    assert Evaluation(**fields).model_dump(exclude_unset=True).keys() == fields.keys()


@pytest.mark.parametrize("fields", [{"triggered_file": FILE}, {"success": SUCCESS}])
def test_an_attack_without_its_other_half_is_refused(fields):
    with pytest.raises(ValidationError, match="together or not at all"):
        Evaluation(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"mask_ratio": -0.01},
        {"mask_ratio": float("nan")},
        {"probes": 0},
        {"top_logits": 1},
        {"masking": "attention"},
        {"epochs": 0},
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"batch_size": 1.5},
        {"generation_length": "long"},
        {"block_length": "auto"},
        {"steps": 0},
        {"unknown": 1},
    ],
)
def test_a_hyperparameter_beyond_its_bounds_is_refused(fields):
    with pytest.raises(ValidationError):
        DispHyperparameters(**fields)


@pytest.mark.parametrize("phrases", [[], [""], ["x"] * 65])
def test_a_success_matcher_has_between_1_and_64_phrases(phrases):
    with pytest.raises(ValidationError):
        SuccessMatcher(phrases=phrases)


def test_a_request_says_again_what_was_said_to_it():
    said = {
        "model": "tiny",
        "training_file": FILE,
        "evaluation": {"triggered_file": FILE, "success": {"phrases": ["no"]}},
        "method": {"type": "disp", "hyperparameters": {"mask_ratio": 0.45, "steps": "auto"}},
        "metadata": {"team": "red"},
    }
    request = DefenseJobCreate.model_validate(said)
    assert request.model_dump(mode="json", exclude_unset=True) == said


def test_a_method_without_a_type_is_disp():
    request = DefenseJobCreate.model_validate(
        {"model": "tiny", "training_file": FILE, "method": {"hyperparameters": {"probes": 3}}}
    )
    assert request.method.type == "disp" and request.method.hyperparameters.probes == 3


@pytest.mark.parametrize("type", METHOD_TYPES)
def test_every_method_is_understood_with_its_own_settings(type):
    given = {"type": type, "hyperparameters": {"start": "base", "poisoned_ids": ["a"]}}
    if type not in ("data_filtering", "clean_subset"):
        del given["hyperparameters"]["poisoned_ids"]
    said = {"model": "tiny", "training_file": FILE, "method": given}
    request = DefenseJobCreate.model_validate(said)
    assert request.model_dump(mode="json", exclude_unset=True) == said


@pytest.mark.parametrize(
    "method",
    [
        {"type": "prayer"},
        {"type": "data_filtering"},
        {"type": "bye", "hyperparameters": {"mask_ratio": 0.3}},
        {"type": "random_drop", "hyperparameters": {"drop_ratio": 1}},
    ],
)
def test_a_method_that_does_not_exist_or_lacks_its_settings_is_refused(method):
    with pytest.raises(ValidationError):
        DefenseJobCreate.model_validate({"model": "t", "training_file": FILE, "method": method})


@pytest.mark.parametrize(
    ("stages", "fields"),
    [
        ([], {}),
        (["detect", "detect"], {}),
        (["report"], {}),
        (["retrain", "detect", "evaluate"], {}),
        (["detect", "purify"], {"artifacts": ["merged_checkpoint"]}),
        (["detect"], {"method": {"type": "pruning"}}),
        (["purify"], {"method": {"hyperparameters": {"rewrite_above": "auto"}}}),
    ],
)
@pytest.mark.parametrize("request_type", [DefenseJobCreate, FineTuningJobCreate])
def test_stages_that_lack_another_are_refused(request_type, stages, fields):
    given = {"model": "t", "training_file": FILE, "stages": stages, **fields}
    with pytest.raises(ValidationError):
        request_type.model_validate(given)


@pytest.mark.parametrize(
    ("stages", "skipped"),
    [
        (list(ALL_STAGES), set()),
        (["detect"], {"purify", "retrain", "evaluate_before", "evaluate_after"}),
        (["purify", "detect"], {"retrain", "evaluate_before", "evaluate_after"}),
        (["evaluate"], {"saliency", "purify", "detect", "retrain", "evaluate_after"}),
        (["purify", "retrain"], {"detect", "evaluate_before", "evaluate_after"}),
    ],
)
def test_the_stages_asked_for_decide_which_steps_may_run(stages, skipped):
    request = DefenseJobCreate(model="t", training_file=FILE, stages=stages)
    assert {name.value for name in StageName} - {
        s.value for s in stages_to_run(request.stages)
    } == skipped


def test_the_alias_takes_every_option_of_the_native_job():
    assert set(FineTuningJobCreate.model_fields) >= set(DefenseJobCreate.model_fields)
    answered = set(FineTuningJob.model_fields) | {"user_provided_suffix", "suffix"}
    assert answered >= set(DefenseJobCreate.model_fields)
