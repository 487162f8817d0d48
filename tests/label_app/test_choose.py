"""Which scan is next: scores by hand, and what the strategy makes of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from label_samples import Store

pytest.importorskip("monailabel")

from semi_med.errors import InputError
from semi_med.label_app import choose
from semi_med.label_app.choose import AtRandom, Disagree, HeldOutDice, MostDisagreed, Scores, agreement, entropy_share
from semi_med.label_app.study import HeldOut


@pytest.fixture
def published(model):
    """A model whose first round answers."""
    folder = model.new_round()
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"")
    model.publish(folder)
    return model


def answer(published, monkeypatch, masks: dict[str, np.ndarray]) -> Counter:
    """Let network 1 and 2 give the masks of these names; counts the calls."""
    calls: Counter = Counter()

    def predictor(network="1", *, maps=(), quick=False):
        def predict(scan):
            calls[network] += 1
            return SimpleNamespace(label=masks[network], maps={"uncertainty": masks.get("uncertainty")})

        return predict

    monkeypatch.setattr(published, "predictor", predictor, raising=False)
    return calls


def test_agreement_is_the_mean_dice_of_the_structures_that_either_has():
    first, second = np.array([0, 1, 1, 1, 2, 0]), np.array([0, 1, 1, 0, 2, 2])
    assert agreement(first, second, (1, 2, 3)) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_two_masks_without_a_structure_agree_on_nothing():
    assert agreement(np.zeros(3), np.zeros(3), (1, 2)) == 0


def test_a_structure_that_one_network_alone_has_counts_as_disagreement():
    assert agreement(np.array([1, 2]), np.array([1, 0]), (1, 2)) == pytest.approx((1 + 0) / 2)


def test_entropy_counts_against_the_voxels_that_were_found():
    assert entropy_share(np.array([0.5, 0.5, 0.0]), np.array([True, True, True])) == pytest.approx(1 / 4)
    assert entropy_share(np.zeros(3), np.array([True, False, False])) == 0
    assert entropy_share(np.full(3, 0.1), np.zeros(3, bool)) == 1


def test_every_scan_without_a_label_is_scored_once_a_round(published, study, monkeypatch):
    calls = answer(published, monkeypatch, {"1": np.array([1, 1, 0]), "2": np.array([1, 0, 0])})
    store, scoring = Store(study, {"scan_0": {}}), Disagree(published)
    assert scoring({}, store) == {"scored": 7, "failed": [], "round": "0001"}
    assert Scores(published).read()["scan_3"] == {"disagreement": pytest.approx(1 / 3, abs=1e-4), "round": "0001"}
    assert "scan_0" not in Scores(published).read()
    assert scoring({}, store)["scored"] == 0
    assert calls == {"1": 7, "2": 7}


def test_a_new_model_scores_again_and_no_more_scans_than_asked(published, study, monkeypatch):
    answer(published, monkeypatch, {"1": np.array([1]), "2": np.array([1])})
    store, scoring = Store(study, {}), Disagree(published)
    scoring({}, store)
    folder = published.new_round()
    (folder / "models").mkdir()
    published.publish(folder)
    assert scoring({"max_samples": 3}, store)["scored"] == 3
    assert Counter(one["round"] for one in Scores(published).read().values()) == {"0001": 5, "0002": 3}


def test_a_scan_that_cannot_be_read_does_not_stop_the_others(published, study, monkeypatch):
    answer(published, monkeypatch, {"1": np.array([1]), "2": np.array([1])})
    whole = published.predictor

    def predictor(network="1", **more):
        def predict(scan):
            if scan.name == "scan_2.nii.gz":
                raise InputError("cut off", where=scan)
            return whole(network)(scan)

        return predict

    monkeypatch.setattr(published, "predictor", predictor, raising=False)
    assert Disagree(published)({}, Store(study, {})) == {"scored": 7, "failed": ["scan_2"], "round": "0001"}


def test_without_a_model_nothing_is_scored(model, study):
    assert Disagree(model).left({}, Store(study, {})) == []


def test_a_method_with_one_network_is_asked_for_its_entropy(supervised_folder, study, tmp_path, monkeypatch):
    from semi_med.label_app.models import Bundle, Model

    single = Model("single", Bundle.read(supervised_folder), tmp_path / "single")
    folder = single.new_round()
    (folder / "models").mkdir()
    single.publish(folder)
    answer(single, monkeypatch, {"1": np.array([1, 0]), "uncertainty": np.array([0.5, 0.5])})
    Disagree(single)({"max_samples": 1}, Store(study, {}))
    assert [one["disagreement"] for one in Scores(single).read().values()] == [0.5]


def test_the_scan_of_the_largest_disagreement_is_next(published, study):
    for name, score in (("scan_1", 0.2), ("scan_4", 0.7), ("scan_0", 0.9)):
        Scores(published).add(name, disagreement=score, round="0001")
    store = Store(study, {"scan_0": {}})
    assert MostDisagreed(published)({}, store) == {"id": "scan_4", "disagreement": 0.7, "round": "0001"}
    assert store.noted == {"scan_4": {"disagreement": 0.7, "round": "0001"}}


def test_scores_of_the_newest_round_count_and_those_of_the_bundle_least(published, study):
    for name, score, round_ in (("scan_1", 0.9, "bundle"), ("scan_2", 0.8, "0001"), ("scan_3", 0.1, "0002")):
        Scores(published).add(name, disagreement=score, round=round_)
    assert MostDisagreed(published)({}, Store(study, {}))["id"] == "scan_3"
    assert MostDisagreed(published)({}, Store(study, {"scan_3": {}}))["id"] == "scan_2"
    assert MostDisagreed(published)({}, Store(study, {"scan_2": {}, "scan_3": {}}))["id"] == "scan_1"


def test_a_scan_that_somebody_has_is_passed_over_for_an_hour(published, study):
    for name, score in (("scan_1", 0.2), ("scan_4", 0.7), ("scan_5", 0.6)):
        Scores(published).add(name, disagreement=score, round="0001")
    store, moment = Store(study, {}), time.time()
    store.noted = {"scan_4": {"strategy": {"disagreement": {"ts": moment - 60}}}}
    assert MostDisagreed(published)({}, store)["id"] == "scan_5"
    store.noted = {"scan_4": {"strategy": {"disagreement": {"ts": moment - 4000}}}}
    assert MostDisagreed(published)({}, store)["id"] == "scan_4"
    store.noted = {f"scan_{number}": {"strategy": {"random": {"ts": moment - number}}} for number in (1, 4, 5)}
    assert MostDisagreed(published)({}, store)["id"] == "scan_5"


def test_without_scores_a_scan_is_drawn_and_without_scans_there_is_none(model, study):
    store = Store(study, {"scan_0": {}})
    assert MostDisagreed(model)({}, store)["id"] in store.get_unlabeled_images()
    assert MostDisagreed(model)({}, Store(study, {name: {} for name in store.list_images()})) is None


def test_a_seed_draws_the_same_scan_again(study):
    store = Store(study, {})
    drawn = [AtRandom()({"seed": 3}, store)["id"] for _ in range(5)]
    assert len(set(drawn)) == 1
    assert len({AtRandom()({"seed": seed}, store)["id"] for seed in range(30)}) > 3
    assert len({AtRandom()({"seed": -1}, store)["id"] for _ in range(60)}) > 3


def test_the_model_is_measured_on_what_is_held_out_alone(published, study, tmp_path, monkeypatch):
    held_out = HeldOut(tmp_path / "sides.json")
    held_out.file.write_text(json.dumps({"scan_0": "training", "scan_1": "validation"}))
    store = Store(study, {"scan_0": {}, "scan_1": {}})
    truth = np.asarray(nib.load(store.get_label_uri("scan_1", "final")).dataobj)
    answer(published, monkeypatch, {"1": np.where(truth == 1, 1, 0)})
    found = HeldOutDice(published, held_out)({}, store)
    assert found["scans"] == {"scan_1": {"anterior hippocampus": 1.0, "posterior hippocampus": 0.0}}
    assert found["mean_dice"] == 0.5


def test_the_model_is_measured_on_a_label_with_its_structures_as_the_client_named_them(published, study, monkeypatch):
    names = [{"name": "posterior hippocampus", "idx": 1}, {"name": "anterior hippocampus", "idx": 2}]
    held_out = HeldOut(published.folder / "held_out.json")
    held_out.file.write_text('{"scan_0": "training", "scan_1": "validation"}')
    store = Store(study, {"scan_0": {}, "scan_1": {"label_info": names}})
    truth = np.asarray(nib.load(store.get_label_uri("scan_1", "final")).dataobj)
    answer(published, monkeypatch, {"1": np.array([0, 2, 1])[truth]})
    assert HeldOutDice(published, held_out)({}, store)["mean_dice"] == 1


def test_a_label_on_another_grid_is_named(published, study, monkeypatch):
    held_out = HeldOut(published.folder / "held_out.json")
    held_out.file.write_text('{"scan_0": "training", "scan_1": "validation"}')
    answer(published, monkeypatch, {"1": np.zeros((3, 3, 3), int)})
    with pytest.raises(InputError, match=r"label of scan_1: the label has .*18, 22, 20"):
        HeldOutDice(published, held_out)({}, Store(study, {"scan_0": {}, "scan_1": {}}))


def test_when_its_time_is_over_scoring_ends_after_the_scan_that_it_was_at(published, study, monkeypatch):
    calls = answer(published, monkeypatch, {"1": np.array([0, 1]), "2": np.array([0, 1])})
    found = Disagree(published)({"max_seconds": 0}, Store(study, {"scan_0": {}}))
    assert (found["scored"], calls["1"], len(Scores(published).read())) == (1, 1, 1)
    assert Disagree(published)({}, Store(study, {"scan_0": {}}))["scored"] == 6


def test_scores_that_are_torn_are_no_scores(model):
    model.folder.mkdir(parents=True)
    (model.folder / "scores.json").write_text('{"scan_1": {"dis')
    assert choose.Scores(model).read() == {}
