"""Peers compute what the package computes, and one that does not is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.agreement import DisagreementError, check, check_formulas
from benchmarks.scaling import similarity_against_descriptors
from benchmarks.workloads import OPERATORS, PACKAGE, STEP, TINY_SHAPES, make

SHAPE = replace(TINY_SHAPES[0], dtype=torch.float64)


def test_all_peers_agree_with_the_package_in_float64():
    check_formulas("cpu")


@pytest.mark.parametrize("peer", ["naive", "batched"])
def test_the_peers_of_the_scaling_curve_agree(peer):
    check(similarity_against_descriptors(96, "cpu", channels=16), peer)


@pytest.mark.parametrize("what", [STEP, *OPERATORS])
def test_another_result_is_noticed(what):
    workload = make(what, SHAPE, "cpu")
    package = workload.contenders[PACKAGE]
    workload.contenders["wrong"] = lambda *inputs: tuple(1.0001 * each for each in package(*inputs))
    with pytest.raises(DisagreementError, match="wrong: output 0"):
        check(workload, "wrong")


def test_another_gradient_is_noticed():
    workload = make(STEP, SHAPE, "cpu")
    package = workload.contenders[PACKAGE]

    def detached(features, *others):
        (loss,) = package(features, *others)
        return (loss + 1e-6 * (features.sum() - features.sum().detach()),)

    workload.contenders["wrong"] = detached
    with pytest.raises(DisagreementError, match="gradient of input 0"):
        check(workload, "wrong")


def test_nan_is_no_agreement():
    workload = make("masked_pool", SHAPE, "cpu")
    package = workload.contenders[PACKAGE]
    workload.contenders["wrong"] = lambda *inputs: tuple(float("nan") * each for each in package(*inputs))
    with pytest.raises(DisagreementError, match="nan"):
        check(workload, "wrong")


def test_bf16_gradients_of_operators_get_no_slack():
    workload = make("masked_pool", replace(TINY_SHAPES[0], dtype=torch.bfloat16), "cpu")
    package = workload.contenders[PACKAGE]

    def tilted(features, masks):
        return tuple(each + 0.1 * (each - each.detach()) for each in package(features, masks))

    workload.contenders["wrong"] = tilted
    with pytest.raises(DisagreementError, match="gradient"):
        check(workload, "wrong")


def test_an_unknown_workload_is_named():
    with pytest.raises(ValueError, match="what is 'steps'"):
        make("steps", SHAPE, "cpu")
