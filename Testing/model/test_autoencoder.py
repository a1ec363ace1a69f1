"""The diffusion autoencoder is the published one, and its options are what they claim to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.models import CPU, TINY, filled, golden, manifest, needs_reference, tiny_images
from hideseekseg.model.autoencoder import DiffusionAutoencoder, relative
from hideseekseg.model.inference import mean_change, seeded_noises
from hideseekseg.model.layers import norm
from hideseekseg.model.profile import Architecture, Schedule
from hideseekseg.model.weights import Model

TOLERANCE = 1e-3

EVIDENCE = Architecture(
    image_size=48,
    patch=3,
    channels=16,
    decoder_mult=(1, 2, 3),
    encoder_mult=(1, 2, 3),
    residual_blocks=1,
    attention_levels=(),
    latent=24,
    embedding=32,
    pooling="evidence",
    evidence_levels=(0, 1),
)


def shapes(architecture: Architecture) -> dict[str, list[int]]:
    with torch.device("meta"):
        network = DiffusionAutoencoder(architecture)
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


@needs_reference
def test_tensors_are_those_of_the_published_checkpoint() -> None:
    assert shapes(Architecture()) == manifest()


def test_size_is_the_published_one() -> None:
    with torch.device("meta"):
        network = DiffusionAutoencoder(Architecture())
    assert len(network.state_dict()) == 506
    assert sum(p.numel() for p in network.parameters()) == 90_835_777


@pytest.mark.slow
def test_latents_and_predicted_noise_are_the_published_ones(published: Model) -> None:
    expected, network = golden("golden_seed1"), published.autoencoder
    image = torch.from_numpy(expected["image"])
    with torch.inference_mode():
        z = network.encode(image)
        eps = {t: network(image, torch.full((2,), t), z) for t in (0, 250, 999)}
    assert (z - torch.from_numpy(expected["z"])).abs().max() <= TOLERANCE
    for t, predicted in eps.items():
        assert (predicted - torch.from_numpy(expected[f"eps_t{t}"])).abs().max() <= TOLERANCE


@pytest.mark.parametrize("architecture", [TINY, EVIDENCE], ids=["mean", "evidence"])
def test_shapes_and_gradients_reach_every_tensor(architecture: Architecture) -> None:
    network = filled(architecture).requires_grad_(True)
    x = tiny_images(3, architecture.image_size)
    z = network.encode(x)
    eps = network(x, torch.tensor([0, 7, 99]), z)
    assert z.shape == (3, architecture.latent)
    assert eps.shape == x.shape
    eps.square().sum().backward()
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def test_training_starts_at_no_noise_predicted() -> None:
    network = DiffusionAutoencoder(TINY)
    x = tiny_images(2)
    assert not network(x, torch.tensor([3, 5]), network.encode(x)).any()


def test_options_change_nothing_but_their_own_tensors() -> None:
    plain = shapes(replace(EVIDENCE, pooling="mean", evidence_levels=()))
    evidence = shapes(EVIDENCE)
    pooled = {name for name in plain if not name.startswith("encoder.out.")}
    assert pooled == {name for name in evidence if not name.startswith("encoder.out.")}
    assert all(plain[name] == evidence[name] for name in pooled)


def test_patches_are_folded_into_channels() -> None:
    found = shapes(EVIDENCE)
    assert found["input_blocks.0.0.weight"] == [16, 9, 3, 3]
    assert found["encoder.input_blocks.0.0.weight"] == [16, 9, 3, 3]
    assert found["out.2.weight"] == [9, 16, 3, 3]


def test_evidence_hears_a_focus_wherever_it_is() -> None:
    """A focus of 5 x 5 pixels moves z by more of z's own length than the mean would let it."""
    x = tiny_images(1, 48).repeat(4, 1, 1, 1)
    for i, (row, column) in enumerate([(8, 8), (20, 30), (36, 16)], start=1):
        x[i, 0, row : row + 5, column : column + 5] += 1.0
    moved = {}
    for pooling in ("mean", "evidence"):
        levels = (0, 1) if pooling == "evidence" else ()
        z = filled(replace(EVIDENCE, pooling=pooling, evidence_levels=levels)).encode(x)
        moved[pooling] = ((z[1:] - z[0]).norm(dim=1) / z[0].norm()).min()
    assert moved["evidence"] > moved["mean"]


def test_images_of_a_batch_do_not_meet() -> None:
    network, x = filled(EVIDENCE), tiny_images(3, 48)
    z, t = network.encode(x), torch.tensor([1, 20, 900])
    together, alone = network(x, t, z), network(x[1:2], t[1:2], network.encode(x[1:2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "groups"), [(64, 32), (192, 32), (768, 32), (48, 8), (36, 2), (2, 1)]
)
def test_norms_have_the_papers_groups_and_fewer_where_narrow(channels: int, groups: int) -> None:
    assert norm(channels).num_groups == groups


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_fast_norm_is_torchs(offset: float) -> None:
    """On maps channels last while nothing is learnt; a mean of ten deviations costs few digits."""
    chance = torch.Generator().manual_seed(0)
    layer = norm(48)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=chance)
    x = torch.randn((5, 48, 8, 8), generator=chance) + offset
    x = x.to(memory_format=torch.channels_last)
    scale, shift = torch.randn((2, 5, 48), generator=chance)
    plain = torch.nn.functional.group_norm(x, layer.num_groups, layer.weight, layer.bias)
    scaled = plain * scale[:, :, None, None] + shift[:, :, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), plain, rtol=0, atol=1e-4)
        torch.testing.assert_close(layer.modulated(x, scale, shift), scaled, rtol=0, atol=1e-4)
        torch.testing.assert_close(layer(x)[2:3], layer(x[2:3]), rtol=0, atol=1e-6)
    learning = layer.modulated(x, scale, shift)
    assert learning.requires_grad
    assert torch.equal(learning, scaled)


def test_patients_marrow_stands_for_the_vertebras_own_only_where_it_is_known() -> None:
    x = torch.rand((2, 1, 48, 48), generator=torch.Generator().manual_seed(0))
    known = torch.tensor([[0.2, 0.1], [0.3, 0.1]])
    mixed = torch.tensor([[0.2, 0.1], [torch.nan, torch.nan]])
    of_both, of_one, alone = relative(x, known), relative(x, mixed), relative(x, None)
    assert torch.equal(of_one[0], of_both[0])
    assert torch.equal(of_one[1], alone[1])
    assert not torch.allclose(alone, of_both)


def test_mirrored_latents_and_edits_do_not_depend_on_the_way_round() -> None:
    architecture = replace(TINY, mirrored=True)
    network, plain = filled(architecture).eval(), filled(TINY).eval()
    x = torch.rand(
        3, 1, TINY.image_size, TINY.image_size, generator=torch.Generator().manual_seed(1)
    )
    with torch.inference_mode():
        z = network.encode(x)
        torch.testing.assert_close(z, network.encode(x.flip(-1)))
        torch.testing.assert_close(z, (plain.encode(x) + plain.encode(x.flip(-1))) / 2)
        assert (plain.encode(x) - plain.encode(x.flip(-1))).abs().max() > 1e-3
        # The same noise for both ways round: then so is the edit.
        noise = torch.randn(3, 1, *x.shape[-2:], generator=torch.Generator().manual_seed(2))
        noises = torch.cat([noise, noise], dim=1)
        schedule = Schedule("fast", edit="single-shot", noise_level=0.3, draws=2)
        pair = [
            y + mean_change(network, schedule, [y, z, -z], n, CPU, 2, None)
            for y, n in ((x, noises), (x.flip(-1), noises))
        ]
        torch.testing.assert_close(pair[0], pair[1].flip(-1), atol=1e-5, rtol=1e-5)


def test_opposite_noise_comes_in_pairs_of_each_slice() -> None:
    three = seeded_noises([4, 9], 3, (5, 6), opposite=True)
    assert three.shape == (2, 3, 5, 6)
    assert torch.equal(three[:, 1], -three[:, 0])
    assert not torch.allclose(three[:, 2].abs(), three[:, 0].abs())
    assert not torch.allclose(three[0], three[1])
