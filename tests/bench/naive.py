"""Slow references that the learners' tests share: one sample and one network at a time, in float64."""

import numpy as np
import torch
import toy
from torch import nn

from benchmarks.batches import Sizes
from minari_stitch.data import minari_io

SIZES = Sizes(states=3, actions=2)


def generators(count, first=0):
    return [torch.Generator().manual_seed(first + run) for run in range(count)]


def batch(runs=2, size=5, seed=0):
    """A random batch in which the second transition terminates."""
    g = torch.Generator().manual_seed(seed)
    continues = torch.ones(runs, size)
    continues[:, 1] = 0
    return {
        "states": torch.randn(runs, size, SIZES.states, generator=g),
        "actions": torch.rand(runs, size, SIZES.actions, generator=g) * 2 - 1,
        "rewards": torch.randn(runs, size, generator=g),
        "next_states": torch.randn(runs, size, SIZES.states, generator=g),
        "continues": continues,
    }


def samples(batch, run):
    """Each transition of a run as float64 arrays."""
    arrays = {name: value[run].double().numpy() for name, value in batch.items()}
    for i in range(len(arrays["rewards"])):
        yield {name: array[i] for name, array in arrays.items()}


def perceptron(parameters, run, member, x):
    """A vector through one network, written out."""
    layers = sum(name.startswith("weight") for name in parameters)
    for layer in range(layers):
        weight = parameters[f"weight{layer}"][run, member].double().numpy()
        x = x @ weight + parameters[f"bias{layer}"][run, member, 0].double().numpy()
        if layer < layers - 1:
            x = np.maximum(x, 0)
    return x


def network(parameters, run, member=0):
    """The same network as plain modules."""
    layers = sum(name.startswith("weight") for name in parameters)
    modules = []
    for layer in range(layers):
        weight, bias = parameters[f"weight{layer}"][run, member], parameters[f"bias{layer}"][run, member, 0]
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T.contiguous().clone(), bias.clone()
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def assert_same(parameters, run, net, member=0, atol=2e-6):
    """A trained network equals a trained module."""
    for layer, linear in enumerate(net[::2]):
        torch.testing.assert_close(
            parameters[f"weight{layer}"][run, member], linear.weight.T, atol=atol, rtol=1e-4, check_stride=False
        )
        torch.testing.assert_close(parameters[f"bias{layer}"][run, member, 0], linear.bias, atol=atol, rtol=1e-4)


def stitched_version(source_id, episodes, output_id="test/walk-stitched-v0", synthetic=(2, 5), beyond=(), **record):
    """Write `episodes` as if they had been stitched; steps [a, b) of each are synthetic. The first is an original.

    `beyond` holds the returns that follow after what is written of the others; those of whole episodes say nothing.
    """
    source = minari_io.read(source_id)
    parts = []
    for number, part in enumerate(episodes):
        mask = np.zeros(len(part["rewards"]) + 1, bool)
        mask[synthetic[0] : synthetic[1]] = number > 0
        about = {"augmented": number > 0}
        if 0 < number <= len(beyond):
            about["return_beyond"] = beyond[number - 1]
        parts.append({**part, "infos": {"synthetic": mask}, "metadata": about})
    made = toy.record(source_id, source_fingerprint=source.fingerprint)
    metadata = {"minari_stitch": made | record}
    minari_io.write(
        parts,
        dataset_id=output_id,
        observation_space=source.observation_space,
        action_space=source.action_space,
        metadata=metadata,
    )
    return output_id
