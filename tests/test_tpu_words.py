"""The words that a step moves on TPU, read off the compiled program: exact numbers.

Programs are compiled for TPU where libtpu is installed; none is needed to run.
"""

import jax
import pytest

pytest.importorskip("optax")

import jopt
from benchmarks import tpu, trees
from benchmarks.cases import CASES
from benchmarks.hlo import Collective, collectives, traffic

# Lines as the compiler writes them, cut short; `S(1)` is on the chip. Arrays are of
# 4,096 bytes. The first fusion reads p and writes in HBM, g comes and goes by copies, m
# comes; of m a quarter is sliced before a fusion and an eighth in one.
RECORDED = """HloModule jit_step, is_scheduled=true, entry_computation_layout={()->()}

%fused.1 (x.1: f32[1024], y.1: f32[1024]) -> (f32[1024], f32[1024]) {
  %x.1 = f32[1024]{0:T(1024)} parameter(0)
  %y.1 = f32[1024]{0:T(1024)S(1)} parameter(1)
  %add.1 = f32[1024]{0:T(1024)} add(%x.1, %y.1)
  ROOT %tuple.1 = (f32[1024]{0:T(1024)}, f32[1024]{0:T(1024)S(1)}) tuple(%add.1, %y.1)
}

%fused.2 (s.1: f32[1024], i.1: s32[]) -> f32[128] {
  %s.1 = f32[1024]{0:T(1024)} parameter(0)
  %i.1 = s32[]{:T(128)S(6)} parameter(1)
  ROOT %dynamic-slice.1 = f32[128]{0:T(128)S(1)} dynamic-slice(%s.1, %i.1), dynamic_slice_sizes={128}
}

%no (a.1: (f32[1024])) -> (f32[1024]) {
  ROOT %a.1 = (f32[1024]{0:T(1024)}) parameter(0)
}

%yes (b.1: (f32[1024])) -> (f32[1024]) {
  %b.1 = (f32[1024]{0:T(1024)}) parameter(0)
  %get.1 = f32[1024]{0:T(1024)} get-tuple-element(%b.1), index=0
  %negate.1 = f32[1024]{0:T(1024)} negate(%get.1), metadata={op_name="jit(step)/(neg"}
  ROOT %tuple.2 = (f32[1024]{0:T(1024)}) tuple(%negate.1)
}

%round (c.1: (f32[1024])) -> (f32[1024]) {
  %c.1 = (f32[1024]{0:T(1024)}) parameter(0)
  %get.2 = f32[1024]{0:T(1024)} get-tuple-element(%c.1), index=0
  %sqrt.1 = f32[1024]{0:T(1024)} sqrt(%get.2)
  ROOT %tuple.3 = (f32[1024]{0:T(1024)}) tuple(%sqrt.1)
}

%until (d.1: (f32[1024])) -> pred[] {
  %d.1 = (f32[1024]{0:T(1024)}) parameter(0)
  ROOT %constant.1 = pred[]{:T(512)S(6)} constant(true)
}

ENTRY %main.1 (p: f32[1024], g: f32[1024], /*index=2*/m: f32[1024]) -> (f32[1024]) {
  %p = f32[1024]{0:T(1024)} parameter(0)
  %g = f32[1024]{0:T(1024)} parameter(1)
  %m = f32[1024]{0:T(1024)} parameter(2), sharding={replicated}
  %w = (f32[1024]{0:T(1024)}) parameter(3)
  %part = f32[256]{0:T(256)} parameter(4)
  %i = s32[]{:T(128)S(6)} constant(0)
  %copy-start.1 = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) copy-start(%g)
  %copy-done.1 = f32[1024]{0:T(1024)S(1)} copy-done(%copy-start.1)
  %copy-start.3 = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) copy-start(%m)
  %copy-done.3 = f32[1024]{0:T(1024)S(1)} copy-done(%copy-start.3)
  %slice-start.1 = ((f32[1024]{0:T(1024)}), f32[256]{0:T(256)S(1)}, s32[]{:S(2)}) slice-start(%m), slice={[0:256]}
  %slice-done.1 = f32[256]{0:T(256)S(1)} slice-done(%slice-start.1)
  %custom-call.1 = f32[256]{0:T(256)S(1)} custom-call(%slice-done.1), custom_call_target="ConcatBitcast"
  %fusion.1 = (f32[1024]{0:T(1024)}, f32[1024]{0:T(1024)S(1)}) fusion(%p, %copy-done.1), kind=kLoop, calls=%fused.1
  %get.3 = f32[1024]{0:T(1024)} get-tuple-element(%fusion.1), index=0
  %get.4 = f32[1024]{0:T(1024)S(1)} get-tuple-element(%fusion.1), index=1
  %copy-start.2 = (f32[1024]{0:T(1024)}, f32[1024]{0:T(1024)S(1)}, u32[]{:S(2)}) copy-start(%get.4)
  %copy-done.2 = f32[1024]{0:T(1024)} copy-done(%copy-start.2)
  %fusion.2 = f32[128]{0:T(128)S(1)} fusion(%m, %i), kind=kLoop, calls=%fused.2
  %custom-call.2 = f32[1024]{0:T(1024)} custom-call(), custom_call_target="AllocateBuffer"
  %square.1 = f32[1024]{0:T(1024)S(1)} multiply(%p, %p)
  %tuple.4 = (f32[1024]{0:T(1024)}) tuple(%get.3)
  %call.1 = (f32[1024]{0:T(1024)}) call(%tuple.4), to_apply=%no
  %cond.1 = (f32[1024]{0:T(1024)}) conditional(%i, %tuple.4, %tuple.4), branch_computations={%no, %yes}
  %while.1 = (f32[1024]{0:T(1024)}) while(%w), condition=%until, body=%round, backend_config={"known_trip_count":{"n":"5"}}
  %all-gather-start.1 = (f32[256]{0:T(256)}, f32[1024]{0:T(1024)}) all-gather-start(%part), replica_groups={{0,1,2,3}}, dimensions={0}
  %all-gather-done.1 = f32[1024]{0:T(1024)} all-gather-done(%all-gather-start.1)
  ROOT %tuple.5 = (f32[1024]{0:T(1024)}, f32[1024]{0:T(1024)}) tuple(%copy-done.2, %copy-done.2)
}
"""  # noqa: E501


def test_only_what_lies_in_hbm_moves_and_each_branch_counts_by_itself():
    fusion, copies, multiply = 2 * 4096, 3 * 4096, 4096
    rounds, gather = 5 * 2 * 4096, 1024 + 4096
    slices = 4096 // 4 + 4096 // 8
    always = fusion + copies + multiply + slices + rounds + gather
    assert traffic(RECORDED) == (always, always + 2 * 4096)


def test_a_collective_has_the_bytes_of_its_result():
    assert collectives(RECORDED) == [Collective("all-gather", 1, 4096)]


def test_a_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        traffic("module @jit_step {}")


# ------------------------------------------------------------- programs of real steps

# Words a parameter for each branch at the most. Fewer than the arithmetic says can be
# had by keeping an array on the chip from one use to the next.
EXACT = {"adamw": 7.0, "lion": 5.0, "sgd": 5.0, "inject": 7.0}
BOUNDS = {
    "clipped_adamw": (8.75, 8.0),  # a norm that overflows is computed anew; else
    "lamb": (9.25,),
    "adafactor": (5.01,),
    "apply_if_finite": (1.0, 7.75),  # bad gradients; good ones
    "multi_steps": (3.0, 8.0),  # collecting; the step
}


def words(lib, case, chips=1, leaves=4):
    """On leaves as large as half of the memory on the chip."""
    pytest.importorskip("libtpu", reason="programs are compiled for TPU")
    shapes = trees.square(leaves, 4096)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return tpu.compare({"it": lib}, CASES[case], shapes, chips)["it"]


@pytest.mark.parametrize("chips", [1, 8])
@pytest.mark.parametrize("case", EXACT)
def test_a_rule_alone_moves_what_it_must(case, chips):
    made = words(jopt, case, chips)
    assert made["words"] == pytest.approx((EXACT[case],), abs=1e-3)
    assert made["collectives"] == 0


def test_the_count_holds_for_optax_too():
    optax = pytest.importorskip("optax")
    assert words(optax, "adamw")["words"] == pytest.approx((7.0,), abs=1e-3)
    assert words(optax, "multi_steps")["words"] == pytest.approx((9.0,), abs=1e-3)


@pytest.mark.parametrize("case", BOUNDS)
def test_a_step_moves_no_more_than_it_did(case):
    made = words(jopt, case)["words"]
    assert len(made) == len(BOUNDS[case])
    assert all(x <= bound + 1e-3 for x, bound in zip(made, BOUNDS[case])), made


def test_a_sum_over_the_tree_reads_the_gradients_once_more():
    optax = pytest.importorskip("optax")
    made = words(optax, "clipped_adamw", leaves=8)["words"]
    # The gradient of one leaf may stay on the chip until it is read again.
    assert made == pytest.approx((8.0,), abs=1 / 8 + 1e-3)
