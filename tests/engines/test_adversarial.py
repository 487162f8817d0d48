"""Networks and discriminators in turn: who moves when, what a checkpoint holds, that stopping loses nothing."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CROP, MARGIN, cases, curve, load, newest, same
from ignite.engine import Events
from torch import Tensor, nn
from torch.nn import functional

from semi_med.data.augment import Augment
from semi_med.data.crops import CropBatches, PairedBatches
from semi_med.data.policies import CTAugment
from semi_med.data.two_views import TwoViews
from semi_med.engines import AdversarialTrainer, Checkpoints, Curves
from semi_med.errors import InputError, TrainingError
from semi_med.losses import dice_ce
from semi_med.methods import AdversarialMethod, Supervised
from semi_med.networks import VNet


@dataclass(kw_only=True, eq=False)
class Judged(AdversarialMethod):
    """A discriminator tells labels from predictions; it sends a gradient into the network if `generator` is above 0."""

    network: nn.Module
    discriminator: nn.Module
    generator: float = 0.0
    poison: float = 1.0

    def losses_and_shown(self, labeled: Any, unlabeled: Any, iteration: int) -> tuple[dict[str, Tensor], Any]:
        supervised = dice_ce(self.network(labeled["image"]), labeled["label"])
        probs = torch.softmax(self.network(unlabeled["image"]).float(), dim=1)[:, 1:]
        judged = self.discriminator(probs).float().mean()
        loss = supervised + self.generator * functional.softplus(-judged)
        real = (labeled["label"] == 1).float()
        return {"loss": loss, "supervised": supervised}, {"real": real, "made": probs}

    def discriminator_losses(self, shown: Any, iteration: int) -> dict[str, Tensor]:
        real, made = (self.discriminator(shown[name]).float().mean() for name in ("real", "made"))
        loss = functional.softplus(-real) + functional.softplus(made)
        return {"discriminator_loss": loss * self.poison, "real": real}


def make_trainer(
    folder: Path | None = None,
    *,
    iterations: int = 8,
    resume: bool = False,
    handlers: tuple[Any, ...] = (),
    generator: float = 0.5,
    learning_rate: float = 0.05,
    **settings: Any,
) -> AdversarialTrainer:
    """A trainer whose views learn too."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = VNet(base_filters=2, levels=2, dropout=0.5)
    discriminator = nn.Sequential(nn.Conv3d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout3d(0.2), nn.Conv3d(4, 1, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9)
    policy = CTAugment(2)
    weak = Augment(flip_axes=(0,), translate=0.2)
    every: list[Any] = list(handlers)
    if folder is not None:
        every += [Curves(folder, interval=1, tensorboard=False), Checkpoints(folder, interval=3, resume=resume)]
    return AdversarialTrainer(
        device="cpu",
        max_epochs=iterations,
        train_data_loader=PairedBatches(
            CropBatches(cases("abc"), CROP, 2),
            CropBatches(cases("tuv", keys=("image",)), CROP, 2, margin=MARGIN, stream="unlabeled"),
        ),
        method=Judged(network=network, discriminator=discriminator, generator=generator),
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=iterations, power=0.9),
        discriminator_optimizer=torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.9, 0.99)),
        labeled_view=TwoViews(CROP, weak, probe=policy),
        unlabeled_view=TwoViews(CROP, weak, policy),
        epoch_length=2,
        max_iterations=iterations,
        train_handlers=every,
        **settings,
    )


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(before: list[Tensor], module: nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


class Stop:
    """Breaks off after an iteration, before anything is written of it."""

    def __init__(self, at: int) -> None:
        self.at = at

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.at), self._fail)

    def _fail(self, engine: Any) -> None:
        raise ZeroDivisionError("stopped")


@pytest.mark.parametrize("generator", [0.0, 0.5])
def test_each_side_moves_in_its_own_step_alone(generator: float) -> None:
    trainer = make_trainer(iterations=1, generator=generator)
    method, seen = trainer.method, []
    before = weights(method.network), weights(method.discriminator)
    judge = method.discriminator_losses

    def between(shown: Any, iteration: int) -> dict[str, Tensor]:
        seen.append((moved(before[0], method.network), moved(before[1], method.discriminator)))
        assert not any(value.requires_grad for value in shown.values())
        seen.append(weights(method.network))
        return judge(shown, iteration)

    method.discriminator_losses = between  # type: ignore[method-assign]
    trainer.run()
    assert seen[0] == (True, False)
    assert not moved(seen[1], method.network)
    assert moved(before[1], method.discriminator)
    assert all(p.requires_grad for p in method.discriminator.parameters())


def test_a_generator_term_reaches_the_network_through_the_frozen_discriminator_and_a_gate_does_not() -> None:
    ends = []
    for generator in (0.0, 0.5, 0.5):
        trainer = make_trainer(iterations=1, generator=generator)
        trainer.run()
        ends.append(weights(trainer.method.network))
    assert same(ends[1], ends[2])
    assert not same(ends[0], ends[1])


def test_the_discriminator_learns_to_tell_them_apart() -> None:
    trainer = make_trainer(iterations=8, generator=0.0)
    values: list[float] = []
    trainer.discriminator_optimizer.param_groups[0]["lr"] = 0.02
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: values.append(float(engine.state.output["discriminator_loss"]))
    )
    trainer.run()
    assert values[0] == pytest.approx(2 * math.log(2), abs=0.2)
    assert values[-1] < values[0] - 0.1


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    make_trainer(folder).run()
    return folder


def test_a_stopped_run_goes_on_bit_for_bit_on_both_sides_and_in_what_the_views_have_learnt(
    unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        make_trainer(tmp_path, handlers=(Stop(5),)).run()
    assert load(newest(tmp_path))["iteration"] == 3
    make_trainer(tmp_path, resume=True).run()
    assert curve(tmp_path) == curve(unbroken)
    ours, theirs = load(newest(tmp_path)), load(newest(unbroken))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert same(ours[key], theirs[key]), key
    rates = theirs["views"]["unlabeled"]
    assert same(rates, theirs["views"]["labeled"])
    assert any((rate < 1).any() for rate in rates.values())
    assert all(0 < float(row["probe_agreement"]) < 1 for row in curve(unbroken))


def test_the_discriminator_is_in_the_checkpoint_and_not_in_the_model(unbroken: Path) -> None:
    state = load(newest(unbroken))
    assert set(state["networks"]) == {"network", "discriminator"}
    assert {"discriminator_optimizer", "discriminator_lr_scheduler", "discriminator_scaler"} < state.keys()
    model = load(unbroken / "models" / "model.pt")
    assert set(model) == {"model"}
    assert same(model["model"], state["networks"]["network"])


def test_another_discriminator_optimizer_cannot_go_on(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken / "checkpoints", tmp_path / "checkpoints")
    trainer = make_trainer()
    trainer.discriminator_optimizer = torch.optim.Adam(trainer.method.discriminator.parameters(), betas=(0.5, 0.99))
    with pytest.raises(InputError, match=r"discriminator_optimizer#betas: \[0.9, 0.99\] in the checkpoint"):
        trainer.load_state_dict(load(newest(tmp_path)))


def test_a_discriminator_loss_that_is_not_finite_stops_the_run() -> None:
    trainer = make_trainer()
    trainer.method.poison = math.nan
    with pytest.raises(TrainingError, match=r"not finite at iteration 1 \(terms: discriminator_loss; cases"):
        trainer.run()


def test_ten_broken_gradients_of_the_discriminator_in_a_row_stop_the_run_though_the_network_goes_on() -> None:
    trainer = make_trainer(iterations=12, gradient_clip=1.0)
    next(trainer.method.discriminator.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingError, match="the discriminator's gradient was not finite in 10 steps in a row"):
        trainer.run()


def test_a_method_without_a_discriminator_is_refused() -> None:
    trainer = make_trainer()
    with pytest.raises(InputError, match="Supervised has no discriminator to train"):
        AdversarialTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=trainer.batches,
            method=Supervised(network=trainer.method.network),
            optimizer=trainer.optimizer,
            discriminator_optimizer=trainer.discriminator_optimizer,
            labeled_view=trainer.labeled_view,
            unlabeled_view=trainer.unlabeled_view,
            epoch_length=1,
        )
