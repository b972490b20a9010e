"""The registered operations against formulations composed of torch's own operations: test_operations.py LIBRARY [DOC]."""
import os
import pathlib
import re
import sys
import tempfile
import types
import unittest

import torch
from torch import library as operators

import formulations as f

LIBRARY = os.path.abspath(sys.argv[1])
torch.ops.load_library(LIBRARY)
ops = torch.ops.grpo
# What each recipe reads beside logp.
BASIC = ("logp_old", "advantage", "logp_ref")
EXTRA = {"clip_cov": ("keep",), "kl_cov": ("keep",), "high_entropy": ("keep",), "m2po": ("keep",), "icepop": ("weight",),
         "decoupled_ppo": ("logp_rollout",), "rft": ("label",), "online_rft": ("label",)}


def batch(dtype, seed=0, rows=5, width=9):
    """Log-ratios of all sizes, both signs of advantage, holes, an empty row; away from kinks with probability 1."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda *sizes: torch.randn(*sizes, generator=g, dtype=torch.float64)
    x = types.SimpleNamespace()
    x.logp = -1.5 + 0.8 * normal(rows, width)
    x.logp = x.logp.clamp(max=-0.05)
    for name in ("logp_old", "logp_ref", "logp_rollout"):
        setattr(x, name, (x.logp + 0.4 * normal(rows, width)).clamp(max=-0.02))
    x.advantage = normal(rows, 1).expand(rows, width).clone()
    x.weight = torch.rand(rows, width, generator=g, dtype=torch.float64) * 2
    x.keep = (torch.rand(rows, width, generator=g) > 0.3).double()
    x.label = (torch.rand(rows, 1, generator=g) > 0.4).double().expand(rows, width).clone()
    x.mask = (torch.rand(rows, width, generator=g) > 0.25).double()
    x.mask[rows - 2] = 0
    for name, value in vars(x).items():
        setattr(x, name, value.to(dtype))
    return x


def arguments(recipe, x):
    names = BASIC + EXTRA.get(recipe, ())
    return {name: getattr(x, name) for name in names}


def loss_of(recipe, x, logp, **more):
    return ops.policy_loss(recipe, logp, mask=x.mask, **{**arguments(recipe, x), **more})[0]


def expected(recipe, x):
    """Value and slope of the formulation, in float64 from the same inputs."""
    wide = types.SimpleNamespace(**{k: v.double() for k, v in vars(x).items()})
    wide.logp = wide.logp.clone().requires_grad_(True)
    value = f.RECIPES[recipe](wide)
    return value.detach(), torch.autograd.grad(value, wide.logp)[0]


def value_and_slope(loss, x):
    value = loss(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


class Case(unittest.TestCase):
    def close(self, ours, theirs, tolerance, what=""):
        ours, theirs = ours.double(), theirs.double()
        self.assertEqual(ours.shape, theirs.shape, what)
        gap = ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max().item() if ours.numel() else 0.0
        self.assertLessEqual(gap, tolerance, what)

    def refused(self, sentence, call):
        with self.assertRaises(RuntimeError, msg=sentence) as caught:
            call()
        self.assertRegex(str(caught.exception), sentence)


class Recipes(Case):
    def test_every_recipe_has_a_formulation(self):
        named = set(ops.recipe_names())
        self.assertEqual(named - {"dpo"}, set(f.RECIPES))
        self.assertIn("dpo", f.PAIRS)

    def test_value_and_gradient_of_every_recipe(self):
        for recipe in f.RECIPES:
            for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
                for seed in range(4):
                    x = batch(dtype, seed)
                    logp = x.logp.clone().requires_grad_(True)
                    value, slope = value_and_slope(lambda l: 3 * loss_of(recipe, x, l), logp)
                    right, right_slope = expected(recipe, x)
                    self.assertEqual((value.dtype, slope.dtype), (dtype, dtype))
                    self.close(value, 3 * right, tolerance, recipe)
                    self.close(slope, 3 * right_slope, tolerance, recipe)

    def test_gradcheck_of_every_recipe(self):
        # Stop-gradients: what is checked numerically is the surrogate, with everything that is constant frozen.
        for recipe in f.RECIPES:
            x = batch(torch.float64, seed=7, rows=3, width=4)
            logp = x.logp.clone().requires_grad_(True)
            if recipe in SURROGATES:
                slope = value_and_slope(lambda l: loss_of(recipe, x, l), logp)[1]
                surrogate = SURROGATES[recipe](x)
                self.assertTrue(torch.autograd.gradcheck(surrogate, logp), recipe)
                self.close(slope, value_and_slope(surrogate, logp)[1], 1e-12, recipe)
            else:
                self.assertTrue(torch.autograd.gradcheck(lambda l: loss_of(recipe, x, l), logp), recipe)

    def test_second_derivatives_are_refused(self):
        for recipe in f.RECIPES:
            x = batch(torch.float64, rows=3, width=4)
            logp = x.logp.clone().requires_grad_(True)
            for upstream in (None, torch.ones((), dtype=torch.float64, requires_grad=True)):
                slope, = torch.autograd.grad(loss_of(recipe, x, logp), logp, upstream, create_graph=True)
                self.assertTrue(slope.requires_grad, recipe)
                self.refused("cannot be differentiated again", lambda: torch.autograd.grad(slope.sum(), logp))
                self.refused("cannot be differentiated again",
                             lambda: torch.autograd.grad((slope * logp).sum(), logp, allow_unused=True))

    def test_parameters(self):
        x = batch(torch.float64)
        low, high = 0.1, 0.4
        ours = loss_of("dapo", x, x.logp, low=low, high=high)
        self.close(ours, f.ppo(x, low, high), 1e-12)
        with_kl = f.token_mean(f.clip_loss(x, 0.2, 0.2, f.UNBOUNDED) + 0.3 * f.k3(x, f.UNBOUNDED), x)
        self.close(loss_of("trl", x, x.logp, beta=0.3), with_kl, 1e-12)
        self.close(loss_of("dapo", x, x.logp, denominator=7.0), f.ppo(x, 0.2, 0.28) * x.mask.sum() / 7, 1e-12)
        weighted = f.token_mean(x.weight * f.clip_loss(x, 0.2, 0.28), x)
        self.close(loss_of("dapo", x, x.logp, weight=x.weight), weighted, 1e-12)
        self.refused("beta is given, but the recipe dapo has no such parameter", lambda: loss_of("dapo", x, x.logp, beta=1.0))
        self.refused("low is given, but the recipe sft has no such parameter", lambda: loss_of("sft", x, x.logp, low=0.1))


# Recipes whose gradient is not that of their value: the paper stops it somewhere. The surrogate holds that part fixed.
def weighted_logp(coefficient):
    def of(x):
        c = coefficient(x)
        return lambda l: (c * l).sum()
    return of


def coefficients(x, recipe):
    return expected(recipe, x)[1]


SURROGATES = {name: weighted_logp(lambda x, name=name: coefficients(x, name))
              for name in ("gspo_token", "cispo", "cispo_upper", "minimax_m1", "vespo", "dppo_tv", "dppo_kl", "opo",
                           "dft", "nemo_rl", "torchtune")}


class Layouts(Case):
    def test_padded_ragged_and_strided_batches_agree(self):
        for recipe in f.RECIPES:
            x = batch(torch.float64, seed=2)
            right, right_slope = expected(recipe, x)
            logp = x.logp.t().contiguous().t().requires_grad_(True)  # transposed memory
            more = {k: torch.stack([v, v], -1)[..., 0] for k, v in arguments(recipe, x).items()}  # every second entry
            if "advantage" in more:
                more["advantage"] = x.advantage[:, :1]
            value, slope = value_and_slope(lambda l: loss_of(recipe, x, l, **more), logp)
            self.close(value, right, 1e-12, recipe)
            self.close(slope, right_slope, 1e-12, recipe)
            # The same rows, cut to their lengths and laid one after the other.
            lengths = [9, 4, 7, 0, 5]
            cut = torch.zeros_like(x.mask)
            for row, n in enumerate(lengths):
                cut[row, :n] = x.mask[row, :n]
            x.mask = cut
            flat = lambda t: torch.cat([t[row, :n] for row, n in enumerate(lengths)])
            offsets = torch.tensor([0] + lengths).cumsum(0).int()
            right, right_slope = expected(recipe, x)
            logp = flat(x.logp).requires_grad_(True)
            value, slope = value_and_slope(
                lambda l: ops.policy_loss(recipe, l, mask=flat(x.mask), cu_seqlens=offsets,
                                          **{k: flat(v) for k, v in arguments(recipe, x).items()})[0], logp)
            self.close(value, right, 1e-12, recipe)
            self.close(slope, flat(right_slope), 1e-12, recipe)

    def test_masked_entries_may_hold_anything(self):
        for recipe in f.RECIPES:
            x = batch(torch.float64, seed=3)
            logp = x.logp.clone().requires_grad_(True)
            value, slope = value_and_slope(lambda l: loss_of(recipe, x, l), logp)
            for poison in (float("nan"), float("inf"), 1e30):
                bad = types.SimpleNamespace(**vars(x))
                for name in ("logp", "logp_old", "logp_ref", "logp_rollout", "advantage", "weight", "keep", "label"):
                    setattr(bad, name, torch.where(x.mask > 0, getattr(x, name), poison))
                poisoned = bad.logp.clone().requires_grad_(True)
                again, slope_again = value_and_slope(lambda l: loss_of(recipe, bad, l), poisoned)
                self.assertTrue(torch.equal(value, again), recipe)
                self.assertTrue(torch.equal(slope, slope_again), recipe)

    def test_bfloat16_and_half(self):
        for recipe in f.RECIPES:
            for dtype, step in ((torch.bfloat16, 2.0 ** -8), (torch.float16, 2.0 ** -11)):
                x = batch(dtype, seed=4)
                logp = x.logp.clone().requires_grad_(True)
                value, slope = value_and_slope(lambda l: loss_of(recipe, x, l), logp)
                right, right_slope = expected(recipe, x)
                self.assertEqual((value.dtype, slope.dtype), (torch.float32, dtype))
                self.close(value, right, 1e-6, recipe)  # read exactly, computed in float32
                self.close(slope, right_slope, step, recipe)  # rounded once

    def test_masks_of_every_type_and_empty_batches(self):
        x = batch(torch.float64)
        right = loss_of("dapo", x, x.logp)
        for dtype in (torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16):
            ours = ops.policy_loss("dapo", x.logp, x.logp_old, x.advantage, x.mask.to(dtype))[0]
            self.assertTrue(torch.equal(ours, right))
        empty = torch.zeros(0, 4, requires_grad=True)
        value, slope = value_and_slope(lambda l: ops.policy_loss("dapo", l, torch.zeros(0, 4), torch.zeros(0, 4))[0], empty)
        self.assertEqual((value.item(), slope.shape), (0.0, (0, 4)))

    def test_micro_batches_add_up(self):
        x = batch(torch.float64)
        count = x.mask.sum().item()
        whole = expected("dapo", x)
        logp = x.logp.clone().requires_grad_(True)
        part = lambda r: ops.policy_loss("dapo", logp[r], x.logp_old[r], x.advantage[r], x.mask[r], x.logp_ref[r],
                                         denominator=count)
        (part(slice(0, 2))[0] + part(slice(2, 5))[0]).backward()
        self.close(logp.grad, whole[1], 1e-12)
        names = ops.metric_names()
        sums = part(slice(0, 2))[1] + part(slice(2, 5))[1]
        self.close(sums, loss_and_metrics("dapo", x)[1], 1e-12)
        self.assertEqual(sums[names.index("tokens")].item(), count)


def loss_and_metrics(recipe, x):
    return ops.policy_loss(recipe, x.logp, mask=x.mask, **arguments(recipe, x))


class Others(Case):
    def test_metrics_are_sums(self):
        x = batch(torch.float64)
        names = ops.metric_names()
        all_of = dict(zip(names, loss_and_metrics("dapo", x)[1].tolist()))
        ratio = (x.logp - x.logp_old).exp()
        up = ((x.advantage > 0) & (ratio > 1.28)).double()
        down = ((x.advantage < 0) & (ratio < 0.8)).double()
        total = lambda t: (t * x.mask).sum().item()
        for name, right in (("clipped_high", total(up)), ("clipped_low", total(down)), ("ratio", total(ratio)),
                            ("log_ratio", total(x.logp - x.logp_old)), ("kl_ref_k3", total(f.k3(x))),
                            ("tokens", total(torch.ones_like(ratio))), ("sequences", 5.0), ("nonempty", 4.0)):
            self.assertAlmostEqual(all_of[name], right, 10, name)

    def test_logits(self):
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            g = torch.Generator().manual_seed(5)
            logits = (3 * torch.randn(3, 4, 11, generator=g, dtype=torch.float64)).to(dtype).requires_grad_(True)
            targets = torch.randint(11, (3, 4), generator=g)
            wide = logits.detach().double().requires_grad_(True)
            both = lambda pair: (pair[0] * weights).sum() + (pair[1] * weights ** 2).sum()
            weights = torch.rand(3, 4, generator=g, dtype=torch.float64) - 0.5
            ours = ops.token_logp(logits, targets, 0.7, True)
            right = f.token_logp(wide, targets, 0.7)
            self.close(ours[0].detach(), right[0].detach(), tolerance)
            self.close(ours[1].detach(), right[1].detach(), tolerance)
            slope, = torch.autograd.grad(both(ours), logits)
            self.assertEqual(slope.dtype, dtype)
            self.close(slope, torch.autograd.grad(both(right), wide)[0], tolerance)
            x = batch(dtype, rows=3, width=4)
            x.mask[1] = 1
            loss = ops.policy_loss_from_logits("grpo", logits, targets, 0.7, mask=x.mask, **arguments("grpo", x))[0]
            w = types.SimpleNamespace(**{k: v.double() for k, v in vars(x).items()})
            w.logp = f.token_logp(wide, targets, 0.7)[0]
            composed = f.RECIPES["grpo"](w)
            self.close(loss.detach(), composed.detach(), tolerance)
            self.close(torch.autograd.grad(loss, logits)[0], torch.autograd.grad(composed, wide)[0], tolerance)
        small = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
        ids = torch.randint(5, (2, 3))
        self.assertTrue(torch.autograd.gradcheck(lambda z: ops.token_logp(z, ids, 0.9, True), small))
        slope, = torch.autograd.grad(ops.token_logp(small, ids)[0].sum(), small, create_graph=True)
        self.refused("cannot be differentiated again", lambda: torch.autograd.grad(slope.square().sum(), small))

    def test_logits_in_16_bits(self):
        logits = torch.randn(4, 6, 33).to(torch.bfloat16).requires_grad_(True)
        targets = torch.randint(33, (4, 6))
        wide = logits.detach().double().requires_grad_(True)
        ours, right = ops.token_logp(logits, targets)[0], f.token_logp(wide, targets, 1.0)[0]
        self.assertEqual(ours.dtype, torch.float32)
        self.close(ours.detach(), right.detach(), 1e-6)
        self.close(torch.autograd.grad(ours.sum(), logits)[0], torch.autograd.grad(right.sum(), wide)[0], 2.0 ** -8)

    def test_masked_logits_are_not_read(self):
        g = torch.Generator().manual_seed(7)
        x = batch(torch.float64, rows=3, width=4)
        x.mask[1] = 1
        hidden = (x.mask == 0)
        wide = torch.randn(3, 4, 11, generator=g, dtype=torch.float64, requires_grad=True)
        targets = torch.randint(11, (3, 4), generator=g)
        logits = wide.detach().masked_fill(hidden.unsqueeze(-1), float("nan")).requires_grad_(True)
        poisoned = targets.masked_fill(hidden, -100)
        both = lambda pair: ((pair[0] + pair[1].square()) * x.mask).sum()
        ours, right = ops.token_logp(logits, poisoned, 0.7, True, x.mask), f.token_logp(wide, targets, 0.7)
        for a, b in zip(ours, right):
            self.close(a.detach(), (b * x.mask).detach(), 1e-12)
        self.close(torch.autograd.grad(both(ours), logits)[0], torch.autograd.grad(both(right), wide)[0], 1e-12)
        loss = ops.policy_loss_from_logits("grpo", logits, poisoned, 0.7, mask=x.mask, **arguments("grpo", x))[0]
        x.logp = f.token_logp(wide, targets, 0.7)[0]
        composed = f.RECIPES["grpo"](x)
        self.close(loss.detach(), composed.detach(), 1e-12)
        slope, = torch.autograd.grad(loss, logits)
        self.close(slope, torch.autograd.grad(composed, wide)[0], 1e-12)
        self.assertEqual(slope[hidden].abs().max(), 0)

    def test_the_way_back_with_what_was_saved_is_the_way_back_without(self):
        logits, targets = torch.randn(4, 6, 33, dtype=torch.float64), torch.randint(33, (4, 6))
        slopes = torch.randn(2, 4, 6, dtype=torch.float64)
        logp, entropy, lse, exact = ops.token_logp_saved(logits, targets, 0.7, True)
        self.close(lse, (logits / 0.7).logsumexp(-1).flatten(), 1e-12)
        self.close(exact, entropy.flatten(), 1e-12)
        self.close(ops.d_logits(logits, targets, *slopes, 0.7, None, lse, exact), ops.d_logits(logits, targets, *slopes, 0.7),
                   1e-14)
        # What is given is what is read: another sum, other probabilities.
        other = ops.d_logits(logits, targets, slopes[0], None, 0.7, None, lse + 1)
        self.assertGreater((other - ops.d_logits(logits, targets, slopes[0], None, 0.7)).abs().max(), 1e-3)

    def test_value_loss(self):
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            g = torch.Generator().manual_seed(6)
            values, old, returns = (torch.randn(3, 7, generator=g, dtype=torch.float64).to(dtype) for _ in range(3))
            mask = (torch.rand(3, 7, generator=g) > 0.3)
            values.requires_grad_(True)
            value, slope = value_and_slope(lambda v: ops.value_loss(v, old, returns, mask)[0], values)
            wide = values.detach().double().requires_grad_(True)
            right = value_and_slope(lambda v: f.value_loss(v, old.double(), returns.double(), mask.double()), wide)
            self.close(value, right[0], tolerance)
            self.close(slope, right[1], tolerance)
            if dtype == torch.float64:
                self.assertTrue(torch.autograd.gradcheck(lambda v: ops.value_loss(v, old, returns, mask)[0], values))

    def test_preference_losses(self):
        for name, formulation in f.PAIRS.items():
            for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
                g = torch.Generator().manual_seed(8)
                w, l, rw, rl = (torch.randn(6, generator=g, dtype=torch.float64).to(dtype) for _ in range(4))
                nw, nl = (torch.randint(1, 9, (6,), generator=g).to(dtype) for _ in range(2))
                w.requires_grad_(True), l.requires_grad_(True)
                ours = lambda w, l: ops.preference_loss(name, w, l, rw, rl, nw, nl)
                wide = [t.detach().double() for t in (w, l, rw, rl, nw, nl)]
                wide[0].requires_grad_(True), wide[1].requires_grad_(True)
                right = formulation(*wide).mean()
                self.close(ours(w, l).detach(), right.detach(), tolerance, name)
                for a, b in zip(torch.autograd.grad(ours(w, l), (w, l)), torch.autograd.grad(right, wide[:2])):
                    self.close(a, b, tolerance, name)
                if dtype == torch.float64:
                    self.assertTrue(torch.autograd.gradcheck(ours, (w, l)), name)
                    slope, = torch.autograd.grad(ours(w, l), w, create_graph=True)
                    self.refused("cannot be differentiated again", lambda: torch.autograd.grad(slope.sum(), l))

    def test_group_advantages(self):
        g = torch.Generator().manual_seed(9)
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            rewards = torch.rand(6, 8, generator=g, dtype=torch.float64).to(dtype)
            rewards[2, :3] = 0
            for recipe, right in f.by_group(rewards.double()).items():
                ours = ops.group_advantages(recipe, rewards, 8)
                self.assertEqual(ours.dtype, dtype)
                self.close(ours, right, tolerance * 10, recipe)
                offsets = torch.arange(0, 49, 8)
                self.assertTrue(torch.equal(ours, ops.group_advantages(recipe, rewards, offsets=offsets)), recipe)
        self.assertEqual(ops.group_advantages("grpo", torch.full((2, 4), 0.1), 4).abs().max().item(), 0.0)

    def test_token_advantages_and_gae(self):
        x = batch(torch.float64, seed=10, rows=6)
        value = torch.randn(6, 9, dtype=torch.float64)
        reward = torch.randn(6, dtype=torch.float64)
        ours = ops.gae(x.weight, value, 0.9, 0.8, x.mask)
        for a, b in zip(ours, f.gae(x.weight, value, 0.9, 0.8, x.mask)):
            self.close(a, b, 1e-12)
        self.close(ops.whiten(value, x.mask), f.whitened(value, x.mask, 1), 1e-12)
        placed = f.last_active(x.mask) * reward.unsqueeze(1)
        more = dict(mask=x.mask, logp_old=x.logp_old, logp_ref=x.logp_ref)
        # PPO: k1 in the reward, GAE, whitened over the batch; returns from before that.
        shaped = placed - 0.02 * (x.logp_old - x.logp_ref)
        right, returns = f.gae(shaped, value, 1.0, 0.95, x.mask)
        ours = ops.token_advantages("ppo", reward, 3, values=value, **more)
        self.close(ours[0], f.whitened(right, x.mask, 1), 1e-12)
        self.close(ours[1], returns, 1e-12)
        # REINFORCE++: returns of the shaped rewards, deviation of at least 1e-4 with ddof 0.
        shaped = placed - 0.01 * (x.logp_old - x.logp_ref).clamp(-10, 10)
        ours = ops.token_advantages("reinforce_plus_plus", reward, 3, **more)
        self.close(ours[0], f.whitened(f.later_sums(shaped, x.mask), x.mask, 0, floor=1e-2), 1e-12)
        greedy = torch.randn(6, dtype=torch.float64)
        ours = ops.token_advantages("remax", reward, 3, mask=x.mask, greedy_rewards=greedy)
        self.close(ours[0], f.later_sums(placed, x.mask) - greedy.unsqueeze(1) * x.mask, 1e-12)
        lead = (reward.view(2, 3) - reward.view(2, 3).mean(1, keepdim=True)).view(6, 1)
        self.close(ops.token_advantages("dr_grpo", reward, 3, mask=x.mask)[0], lead * x.mask, 1e-12)


class Refusals(Case):
    def test_one_sentence_for_each_mistake(self):
        x = batch(torch.float32)
        a = dict(logp_old=x.logp_old, advantage=x.advantage, mask=x.mask)
        call = lambda logp=x.logp, recipe="dapo", **more: lambda: ops.policy_loss(recipe, logp, **{**a, **more})
        for sentence, what in (
                (r"logp_old is missing, but the loss reads it", call(logp_old=None)),
                (r"logp is of type Long, but must be float32, float64, bfloat16 or float16", call(x.logp.long())),
                (r"logp is of type ComplexFloat", call(x.logp.to(torch.complex64))),
                (r"advantage is of type Int", call(advantage=x.advantage.int())),
                (r"mask is of type ComplexFloat, but must be of booleans or numbers", call(mask=x.mask.to(torch.complex64))),
                (r"mask has the shape \[5, 8\], but the batch has \[5, 9\]", call(mask=x.mask[:, 1:])),
                (r"logp_old has the shape \[5, 8\], but the batch has \[5, 9\]", call(logp_old=x.logp_old[:, 1:])),
                (r"logp has the shape \[9\], but must be \[rows, width\]", call(x.logp[0])),
                (r"logp has 45 entries, but the batch has 44", call(x.logp.view(-1), mask=None, logp_old=x.logp.view(-1),
                                                                    cu_seqlens=torch.tensor([0, 44]))),
                (r"cu_seqlens falls from 9 to 3", call(x.logp.view(-1), mask=None, cu_seqlens=torch.tensor([0, 9, 3]))),
                (r"cu_seqlens is of type Float", call(x.logp.view(-1), mask=None, cu_seqlens=torch.zeros(2))),
                (r"logp_old requires a gradient, but is a constant", call(logp_old=x.logp_old.clone().requires_grad_(True))),
                (r"on the device meta, but another one holds data", call(logp_old=x.logp_old.to("meta"))),
                (r"name is \"dapi\", which no recipe has; nearest are dapo", call(recipe="dapi")),
                (r"loss of pairs", call(recipe="dpo")),
                (r"denominator is -1, but must be finite and at least 0", call(denominator=-1.0)),
                (r"clipped.low is -1", call(low=-1.0)),
                (r"group_size is 7, which 45 responses cannot be divided by", lambda: ops.group_advantages("grpo", x.logp, 7)),
                (r"exactly one", lambda: ops.group_advantages("grpo", x.logp)),
                (r"targets has 11 at token 0, but the vocabulary has 11",
                 lambda: ops.token_logp(torch.zeros(1, 11), torch.tensor([11]))),
                (r"logits has the shape \[2, 3\], but the targets have \[3\]",
                 lambda: ops.token_logp(torch.zeros(2, 3), torch.zeros(3).long())),
                (r"temperature is 0", lambda: ops.token_logp(torch.zeros(1, 2), torch.tensor([0]), 0.0)),
                (r"rejected has the shape \[2\], but the batch has \[3\]",
                 lambda: ops.preference_loss("contrastive", torch.zeros(3), torch.zeros(2))),
                (r"loss is \"kto\", but must be dpo", lambda: ops.preference_loss("kto", torch.zeros(3), torch.zeros(3))),
                (r"ref_chosen is missing", lambda: ops.preference_loss("dpo", torch.zeros(3), torch.zeros(3)))):
            self.refused(sentence, what)

    def test_raw_forms_have_no_silent_gradient(self):
        x = batch(torch.float64)
        logp = x.logp.clone().requires_grad_(True)
        value, slope, _ = ops.policy_loss_fused("dapo", logp, x.logp_old, x.advantage, x.mask)
        self.close(slope.detach(), expected("dapo", x)[1], 1e-12)
        self.assertTrue(value.requires_grad)
        self.refused("derivative for .*policy_loss_fused", lambda: value.backward())

    def test_a_library_that_is_none(self):
        with tempfile.TemporaryDirectory() as folder:
            broken = pathlib.Path(folder) / "libbroken.so"
            broken.write_text("no library")
            with self.assertRaises(OSError):
                torch.ops.load_library(str(broken))
            with self.assertRaises(OSError):
                torch.ops.load_library(str(broken.with_name("absent.so")))

    def test_with_no_grad_there_is_no_graph(self):
        x = batch(torch.float64)
        logp = x.logp.clone().requires_grad_(True)
        with torch.no_grad():
            self.assertFalse(loss_of("dapo", x, logp).requires_grad)
        self.assertFalse(loss_of("dapo", x, x.logp).requires_grad)


class Meta(Case):
    def test_shapes_without_data(self):
        x = batch(torch.float32)
        m = types.SimpleNamespace(**{k: v.to("meta") for k, v in vars(x).items()})
        logits, targets = torch.zeros(5, 9, 11), torch.zeros(5, 9).long()
        pairs = torch.zeros(6)
        calls = {
            "policy": lambda x, g: ops.policy_loss_fused("grpo", g(x.logp), g(x.logp_old), g(x.advantage), g(x.mask), g(x.logp_ref)),
            "double": lambda x, g: ops.policy_loss_fused("dapo", g(x.logp), g(x.logp_old.double()), g(x.advantage), g(x.mask)),
            "value": lambda x, g: ops.value_loss_fused(g(x.logp), g(x.logp_old), g(x.logp_ref), g(x.mask)),
            "pairs": lambda x, g: ops.preference_loss_fused("dpo", *(g(pairs) for _ in range(4))),
            "logp": lambda x, g: ops.token_logp_fused(g(logits), g(targets), 1.0, True),
            "no entropy": lambda x, g: ops.token_logp_fused(g(logits), g(targets)),
            "saved": lambda x, g: ops.token_logp_saved(g(logits), g(targets), 1.0, True, g(x.mask)),
            "saved, no entropy": lambda x, g: ops.token_logp_saved(g(logits.double()), g(targets)),
            "logits": lambda x, g: [ops.d_logits(g(logits.bfloat16()), g(targets), g(x.logp), None)],
            "groups": lambda x, g: [ops.group_advantages("grpo", g(pairs), 3)],
            "tokens": lambda x, g: ops.token_advantages("dr_grpo", g(pairs[:5]), 5, mask=g(x.mask)),
            "gae": lambda x, g: ops.gae(g(x.logp), g(x.logp_old), mask=g(x.mask)),
            "whiten": lambda x, g: [ops.whiten(g(x.logp), g(x.mask))],
        }
        for name, call in calls.items():
            real, fake = call(x, lambda t: t), call(x, lambda t: t.to("meta"))
            for a, b in zip(real, fake):
                self.assertEqual((a.shape, a.dtype), (b.shape, b.dtype), name)
                self.assertEqual(b.device.type, "meta", name)
        logp = m.logp.clone().requires_grad_(True)
        loss = ops.policy_loss("dapo", logp, m.logp_old, m.advantage, m.mask)[0]
        slope, = torch.autograd.grad(loss, logp)
        self.assertEqual((slope.shape, slope.device.type), (logp.shape, "meta"))

    def test_torch_checks_the_raw_operations_itself(self):
        if not hasattr(operators, "opcheck"):
            self.skipTest(f"torch {torch.__version__} has no opcheck")
        x = batch(torch.float32)
        logits, targets = torch.randn(5, 9, 11), torch.zeros(5, 9).long()
        pairs = torch.randn(6)
        for name, given, named in (
                ("policy_loss_fused", ("grpo", x.logp, x.logp_old, x.advantage, x.mask, x.logp_ref), {}),
                ("value_loss_fused", (x.logp, x.logp_old, x.logp_ref, x.mask), {}),
                ("preference_loss_fused", ("dpo", pairs, pairs + 1, pairs, pairs), {}),
                ("token_logp_fused", (logits, targets, 0.7, True), {}),
                ("token_logp_saved", (logits, targets, 0.7, True, x.mask), {}),
                ("d_logits", (logits, targets, x.logp, None), {}),
                ("group_advantages", ("grpo", pairs, 3), {}),
                ("token_advantages", ("dr_grpo", pairs[:5], 5), {"mask": x.mask}),
                ("gae", (x.logp, x.logp_old), {"mask": x.mask}),
                ("whiten", (x.logp, x.mask), {})):
            operators.opcheck(getattr(ops, name).default, given, named, test_utils=("test_schema", "test_faketensor"))

    def test_compiled(self):
        if not hasattr(torch, "compile"):
            self.skipTest(f"torch {torch.__version__} has no compile")
        x = batch(torch.float64)
        def step(logp):
            return ops.policy_loss("grpo", 2 * logp, mask=x.mask, **arguments("grpo", x))[0]
        for backend in ("eager", "aot_eager"):
            logp = (x.logp / 2).clone().requires_grad_(True)
            value, slope = value_and_slope(torch.compile(step, backend=backend, fullgraph=True), logp)
            right = expected("grpo", x)
            self.close(value, right[0], 1e-12)
            self.close(slope, 2 * right[1], 1e-12)


class Hooks(Case):
    """The Python of docs/adapters.md, with stand-ins that call it as the trainers do."""

    def blocks(self):
        text = pathlib.Path(sys.argv[2]).read_text().replace("libgrpo_ops.so", LIBRARY)
        return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)

    def namespace(self, word, **modules):
        block, = [b for b in self.blocks() if word in b]
        sys.modules.update(modules)
        names = {}
        exec(compile(block, "docs/adapters.md", "exec"), names)
        return names

    def test_trl(self):
        class GRPOTrainer:
            epsilon_low, epsilon_high, beta = 0.2, 0.28, 0.04

            def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep):
                assert input_ids.shape == attention_mask.shape == (5, 12)
                return model[:, -logits_to_keep:], None

            def compute_loss(self, model, inputs):
                return self._compute_loss(model, inputs)

        trainer = self.namespace("GRPOTrainer", trl=types.SimpleNamespace(GRPOTrainer=GRPOTrainer))["Trainer"]()
        x = batch(torch.float64)
        inputs = {"prompt_ids": torch.zeros(5, 3).long(), "completion_ids": torch.zeros(5, 9).long(),
                  "prompt_mask": torch.ones(5, 3).long(), "completion_mask": x.mask.long(),
                  "advantages": x.advantage[:, 0], "old_per_token_logps": x.logp_old, "ref_per_token_logps": x.logp_ref}
        x.logp.requires_grad_(True)
        for old in (x.logp_old, None):
            inputs["old_per_token_logps"] = old
            x.logp_old = x.logp.detach() if old is None else old
            composed = f.token_mean(f.clip_loss(x, 0.2, 0.28, f.UNBOUNDED) + 0.04 * f.k3(x, f.UNBOUNDED), x)
            right = torch.autograd.grad(composed, x.logp)[0]
            loss = trainer.compute_loss(x.logp, inputs)
            self.close(loss.detach(), composed.detach(), 1e-12)
            self.close(torch.autograd.grad(loss, x.logp)[0], right, 1e-12)

    def test_verl(self):
        registry = {}

        def register_policy_loss(name):
            return lambda function: registry.setdefault(name, function)

        algorithms = types.SimpleNamespace(register_policy_loss=register_policy_loss)
        self.namespace("register_policy_loss", **{"verl": types.ModuleType("verl"),
                                                  "verl.trainer": types.ModuleType("trainer"),
                                                  "verl.trainer.ppo": types.ModuleType("ppo"),
                                                  "verl.trainer.ppo.core_algos": algorithms})
        x = batch(torch.float64)
        x.logp.requires_grad_(True)
        config = types.SimpleNamespace(clip_ratio_low=0.2, clip_ratio_high=0.3)
        for weight in (None, x.weight):
            loss, metrics = registry["grpo_core"](old_log_prob=x.logp_old, log_prob=x.logp, advantages=x.advantage,
                                                  response_mask=x.mask.long(), loss_agg_mode="token-mean", config=config,
                                                  rollout_is_weights=weight)
            composed = f.token_mean((1 if weight is None else weight) * f.dual_clip(x, 0.2, 0.3), x)
            self.close(loss.detach(), composed.detach(), 1e-12)
            self.close(torch.autograd.grad(loss, x.logp)[0], torch.autograd.grad(composed, x.logp)[0], 1e-12)
            self.assertAlmostEqual(metrics["actor/ppo_kl"], f.token_mean(x.logp_old - x.logp, x).item(), 12)
            self.assertGreater(metrics["actor/pg_clipfrac"], 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
