// The table of all recipes, and what is looked up in it by name at run time.
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/recipe/estimators.hpp>
#include <grpo/recipe/frameworks.hpp>
#include <grpo/recipe/losses.hpp>

namespace grpo::inline v0 {

namespace detail {

inline bool same_name(const char* a, const char* b) {
    while (*a != '\0' && *a == *b) ++a, ++b;
    return *a == *b;
}

// How many letters must be put in, taken out or changed to get from a to b (Levenshtein); names beyond 39 letters are
// cut.
inline int distance(const char* a, const char* b) {
    constexpr int longest = 40;
    int row[longest];
    int width = 0;
    for (; width + 1 < longest && b[width] != '\0'; ++width) row[width] = width;
    row[width] = width;
    for (int i = 0; i + 1 < longest && a[i] != '\0'; ++i) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 1; j <= width; ++j) {
            const int changed = diagonal + (a[i] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            const int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = changed < other ? changed : other;
        }
    }
    return row[width];
}

}  // namespace detail

namespace recipe {

// Calls f with every recipe, in its defaults.
template <class F>
void for_each(F&& f) {
    f(grpo()), f(deepseek_r1()), f(deepseek_v3_2()), f(dr_grpo()), f(dapo()), f(lite_ppo()), f(dual_clip());
    f(two_sided_clip()), f(gspo()), f(gspo_token()), f(luspo()), f(gmpo()), f(cispo()), f(cispo_upper()),
        f(minimax_m1());
    f(sapo()), f(vespo()), f(dppo_tv()), f(dppo_kl()), f(clip_cov()), f(kl_cov()), f(high_entropy()), f(m2po()),
        f(icepop());
    f(decoupled_ppo()), f(dro()), f(gpg()), f(pass_at_k()), f(gdpo()), f(rloo()), f(opo()), f(reinforce()), f(remax());
    f(reinforce_plus_plus()), f(reinforce_plus_plus_baseline()), f(ppo()), f(vapo()), f(otb());
    f(sft()), f(rft()), f(online_rft()), f(dft()), f(dpo());
    f(trl()), f(verl()), f(openrlhf()), f(nemo_rl()), f(slime()), f(areal()), f(tunix()), f(torchtune());
}

// All recipes without their losses: for (const recipe::card& c : recipe::cards()) ... Built anew by every call.
struct card_list {
    card entries[64];
    int size = 0;

    const card* begin() const { return entries; }
    const card* end() const { return entries + size; }
};
inline card_list cards() {
    card_list all;
    for_each([&](const card& c) { all.entries[all.size++] = c; });
    return all;
}

// Their names: for (const char* name : recipe::names()) ...
struct name_list {
    const char* entries[64];
    int size = 0;

    const char* const* begin() const { return entries; }
    const char* const* end() const { return entries + size; }
};
inline name_list names() {
    name_list all{};
    for (const card& c : cards()) all.entries[all.size++] = c.name;
    return all;
}

}  // namespace recipe

namespace detail {

inline problem unknown_recipe(const char* function, const char* name) {
    const char* nearest[3] = {};
    int gap[3] = {1 << 20, 1 << 20, 1 << 20};
    const recipe::name_list all = recipe::names();
    for (const char* candidate : all) {
        int d = distance(name, candidate);
        for (int k = 0; k < 3; ++k) {
            if (d >= gap[k]) continue;
            const int kept = gap[k];
            const char* const pushed = nearest[k];
            gap[k] = d;
            nearest[k] = candidate;
            d = kept;
            candidate = pushed;
        }
    }
    return complain(function, "name",
                    "is \"%.60s\", which no recipe has; nearest are %s, %s and %s of %d: see recipe::names()", name,
                    nearest[0], nearest[1], nearest[2], all.size);
}

}  // namespace detail

namespace recipe {

// Calls f with the recipe of that name; f is compiled for every recipe. Pair losses (dpo) and those that read rollout
// weights have batches of their own: tell them apart with `requires` or with decltype(r.objective.term)::needs.
template <class F>
void visit(const char* name, F&& f) {
    bool found = false;
    if (name == nullptr) name = "";
    for_each([&](const auto& r) {
        if (found || !grpo::detail::same_name(name, r.name)) return;
        found = true;
        f(r);
    });
    if (!found) detail::require(detail::unknown_recipe("recipe::visit", name));
}

// A recipe's card, and its advantage rule, without compiling anything per recipe.
inline card find(const char* name) {
    if (name == nullptr) name = "";
    for (const card& c : cards()) {
        if (detail::same_name(name, c.name)) return c;
    }
    detail::raise(detail::unknown_recipe("recipe::find", name));
}
inline advantage_rule advantages(const char* name) {
    return find(name).advantage;
}

}  // namespace recipe
}  // namespace grpo::inline v0
