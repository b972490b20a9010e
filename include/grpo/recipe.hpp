// Recipes: one line per published method with its paper's constants, and GRPO as eight frameworks compute it.
//
//   const auto r = grpo::recipe::dapo();
//   r.advantages(groups, rewards, advantages);                             // one number per response
//   const double n = r.objective.over.denominator(grpo::count(tokens));
//   const auto result = grpo::evaluate(exec, r.objective, batch, n, grpo::d_logp(gradient));
//
// A recipe is a small value; its fields are the method, and any can be changed:
//
//   auto r = grpo::recipe::grpo(0.01);         // the KL's coefficient; 0 reads no reference
//   r.advantage.group.eps = 1e-4;              // the rule of the advantages
//   r.objective.term.a.high = 0.28;            // a term: of a sum `a + beta * kl` the left part is .a, the KL .b.a
//   r.objective.over = grpo::aggregation::token_mean();
//
// By name at run time:
//
//   grpo::recipe::visit("gspo", [&](const auto& r) { ... });               // the whole recipe
//   grpo::recipe::advantages("rloo").by_sequence(groups, rewards, out);    // its advantages alone, cheap to compile
//   for (const char* name : grpo::recipe::names()) ...
//
//   rule.hpp         advantages as data, and the calls that carry them out
//   method.hpp       what a recipe is made of
//   losses.hpp       methods that differ in the loss
//   estimators.hpp   methods that differ in the advantage; likelihoods and preferences
//   frameworks.hpp   TRL, verl, OpenRLHF, NeMo RL, slime, AReaL, tunix, torchtune
//   table.hpp        all of them, by name
//
// docs/recipes.md has them as two tables.
#pragma once

#include <grpo/recipe/estimators.hpp>
#include <grpo/recipe/frameworks.hpp>
#include <grpo/recipe/losses.hpp>
#include <grpo/recipe/method.hpp>
#include <grpo/recipe/rule.hpp>
#include <grpo/recipe/table.hpp>
