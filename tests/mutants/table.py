"""Faults made by hand. Each has slipped through, or could; the tests beside it see it

`old` stands in its module exactly once; `new` takes its place. Anchor on short texts that stay. `why` says what the fault does."""
from typing import NamedTuple


class Mutant(NamedTuple):
    name: str         # What is wrong
    module: str       # otseg/MODULE.py
    old: str          # Found exactly once
    new: str
    tests: list[str]  # tests/FILE.py::test, each of which fails
    why: str          # What a user would get


MUTANTS = []


def of(module, *tests):
    "Add mutants (name, old, new, why) of a module that these tests see"
    def add(name, old, new, why): MUTANTS.append(Mutant(name, module, old, new, list(tests), why))
    return add


# transport
T = 'transport/test_definitions.py::'
of('transport/solvers', f'{T}test_the_textbook_stops_by_the_mean_change')(
    'stops by the largest change', '(f - before).abs().mean() < tol', '(f - before).abs().amax() < tol',
    'more iterations than the published rule takes')
of('transport/solvers', f'{T}test_errors_are_shares_of_the_mass')(
    'log solver measures in units of mass', '((mass * ratio.abs()).sum(-1) / mass.sum(-1) <= tol)', '((mass * ratio.abs()).sum(-1) <= tol)',
    'large masses never converge, small ones at once')
of('transport/solvers', f'{T}test_errors_are_shares_of_the_mass')(
    'scaling measures in units of mass', '- a).abs().sum(-1) / a.sum(-1)', '- a).abs().sum(-1)', 'the same')
of('transport/solvers', f'{T}test_errors_are_shares_of_the_mass')(
    'Newton measures in units of mass', 'error = residual.abs().sum(1) / mass', 'error = residual.abs().sum(1)', 'the same')
of('transport/solvers', f'{T}test_row_error_by_hand', f'{T}test_errors_are_shares_of_the_mass')(
    'row error in units of mass', 'plan.sum(1).sub_(a).abs_().sum(-1) / a.sum(-1)', 'plan.sum(1).sub_(a).abs_().sum(-1)',
    'an error that depends on the unit')
of('transport/entropic', f'{T}test_gradients_of_the_masses')(
    'gradient of b centred by itself', '(alpha - level, beta + level +', '(alpha - level, beta - (b * beta).sum(1, keepdim=True) / b.sum(1, keepdim=True) +',
    'what more mass brings is lost')
of('transport/entropic', f'{T}test_gradients_of_the_masses')(
    'gradients of the masses not centred', '(alpha - level, beta + level +', '(alpha, beta +', 'a constant of no meaning in both gradients')
of('transport/entropic', f'{T}test_unequal_masses_are_refused_in_any_problem')(
    'unequal masses beside equal ones', 'torch.isclose(ma, mb, rtol=1e-4).all()', 'torch.isclose(ma, mb, rtol=1e-4).any()',
    'a plan of neither marginal')
of('transport/mpsa', f'{T}test_equal_shares_have_the_scale_of_the_published_map')(
    'even shares without 1/n', 'return scale / n * scores if plan is None', 'return scale * scores if plan is None',
    'logits of the softmax twin n times too large')
of('transport/mpsa', f'{T}test_dot_products_are_over_sqrt_d')(
    'dot products not over sqrt d', "'b k n d, b m d -> b k m n') / self.dim**0.5", "'b k n d, b m d -> b k m n')",
    'another attention than Eq 11')
of('transport/mpsa', f'{T}test_attention_weights_are_dropped_out')(
    'no dropout on attention weights', "shares = self.dropout(weights if self.mix == 'plan' else weights * scores)",
    "shares = weights if self.mix == 'plan' else weights * scores", 'another training')
