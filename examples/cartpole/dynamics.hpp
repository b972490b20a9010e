// CartPole-v1 and Acrobot-v1 as Gymnasium defines them: equations of motion, rewards, ends, starting states.
//
// Sources: the equations of Barto, Sutton and Anderson (1983) with Gymnasium's constants and explicit Euler steps for
// the cart-pole (gymnasium/envs/classic_control/cartpole.py); those of Sutton and Barto's book with one Runge-Kutta
// step of 0.2 s for the acrobot (gymnasium/envs/classic_control/acrobot.py, version 0.29). No torque noise, as in
// Acrobot-v1.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "support/random.hpp"

namespace control {

using state = std::array<double, 4>;

// What a task is, and what CleanRL published for it (docs/rl-algorithms/ppo.md: mean and deviation over three seeds).
struct task {
    const char* id;
    const char* name;
    int observations;
    int actions;
    int step_limit;
    double published_mean;
    double published_deviation;
};

struct outcome {
    double reward;
    bool terminated;
};

// A cart on a track balances a pole: push left (0) or right (1), a reward of 1 per step until it falls or runs off.
struct cart_pole {
    static constexpr task about{"CartPole-v1", "cartpole", 4, 2, 500, 490.04, 6.12};
    static constexpr double gravity = 9.8;
    static constexpr double cart_mass = 1.0;
    static constexpr double pole_mass = 0.1;
    static constexpr double total_mass = cart_mass + pole_mass;
    static constexpr double half_length = 0.5;
    static constexpr double push = 10.0;
    static constexpr double seconds = 0.02;
    static constexpr double position_bound = 2.4;
    static constexpr double angle_bound = 12.0 * std::numbers::pi / 180.0;

    // s = position, velocity, angle, angular velocity.
    static outcome step(state& s, int action) {
        const auto [x, x_dot, theta, theta_dot] = s;
        const double cosine = std::cos(theta);
        const double sine = std::sin(theta);
        const double lever = pole_mass * half_length;
        const double force = action == 1 ? push : -push;
        const double drive = (force + lever * theta_dot * theta_dot * sine) / total_mass;
        const double inertia = half_length * (4.0 / 3.0 - pole_mass * cosine * cosine / total_mass);
        const double theta_acceleration = (gravity * sine - cosine * drive) / inertia;
        const double x_acceleration = drive - lever * theta_acceleration * cosine / total_mass;
        s = {x + seconds * x_dot, x_dot + seconds * x_acceleration, theta + seconds * theta_dot,
             theta_dot + seconds * theta_acceleration};
        return {1.0, std::abs(s[0]) > position_bound || std::abs(s[2]) > angle_bound};
    }

    static void observe(const state& s, float* out) {
        std::transform(s.begin(), s.end(), out, [](double v) { return static_cast<float>(v); });
    }

    static state start(support::choices& random) {
        state s;
        for (double& v : s) v = 0.1 * random.unit() - 0.05;
        return s;
    }
};

// A double pendulum with a motor in the elbow: torque -1, 0 or 1 (actions 0, 1, 2), a reward of -1 per step until its
// tip is one link above the shoulder.
struct acrobot {
    static constexpr task about{"Acrobot-v1", "acrobot", 6, 3, 500, -86.36, 1.32};
    static constexpr double gravity = 9.8;
    static constexpr double mass = 1.0;
    static constexpr double length = 1.0;
    static constexpr double centre = 0.5;
    static constexpr double inertia = 1.0;
    static constexpr double seconds = 0.2;
    static constexpr double first_speed_bound = 4.0 * std::numbers::pi;
    static constexpr double second_speed_bound = 9.0 * std::numbers::pi;

    // s = angle of the first link from hanging down, angle of the second to the first, their angular velocities.
    static outcome step(state& s, int action) {
        s = integrated(s, static_cast<double>(action - 1));
        s[0] = wrapped(s[0]);
        s[1] = wrapped(s[1]);
        s[2] = std::clamp(s[2], -first_speed_bound, first_speed_bound);
        s[3] = std::clamp(s[3], -second_speed_bound, second_speed_bound);
        const bool reached = -std::cos(s[0]) - std::cos(s[1] + s[0]) > 1.0;
        return {reached ? 0.0 : -1.0, reached};
    }

    static void observe(const state& s, float* out) {
        const std::array<double, 6> seen{std::cos(s[0]), std::sin(s[0]), std::cos(s[1]), std::sin(s[1]), s[2], s[3]};
        std::transform(seen.begin(), seen.end(), out, [](double v) { return static_cast<float>(v); });
    }

    // Gymnasium rounds the starting state, and no later one, to float32.
    static state start(support::choices& random) {
        state s;
        for (double& v : s) v = static_cast<double>(static_cast<float>(0.2 * random.unit() - 0.1));
        return s;
    }

private:
    static state derivative(const state& s, double torque) {
        const auto [a, b, a_dot, b_dot] = s;
        const double reach = mass * length * centre;
        const double own = mass * centre * centre + inertia;
        const double coupling = own + reach * std::cos(b);
        const double whole = own + coupling + mass * length * length + reach * std::cos(b);
        const double half_turn = std::numbers::pi / 2.0;
        const double second = mass * centre * gravity * std::cos(a + b - half_turn);
        const double first = -reach * b_dot * b_dot * std::sin(b) - 2.0 * reach * b_dot * a_dot * std::sin(b) +
                             (mass * centre + mass * length) * gravity * std::cos(a - half_turn) + second;
        const double b_acceleration =
            (torque + coupling / whole * first - reach * a_dot * a_dot * std::sin(b) - second) /
            (own - coupling * coupling / whole);
        return {a_dot, b_dot, -(coupling * b_acceleration + first) / whole, b_acceleration};
    }

    static state moved(const state& s, const state& by, double seconds_ahead) {
        state r;
        for (std::size_t i = 0; i < r.size(); ++i) r[i] = s[i] + seconds_ahead * by[i];
        return r;
    }

    // One step of the classical fourth-order Runge-Kutta method; the torque holds throughout.
    static state integrated(const state& s, double torque) {
        const state k1 = derivative(s, torque);
        const state k2 = derivative(moved(s, k1, seconds / 2.0), torque);
        const state k3 = derivative(moved(s, k2, seconds / 2.0), torque);
        const state k4 = derivative(moved(s, k3, seconds), torque);
        state r;
        for (std::size_t i = 0; i < r.size(); ++i) {
            r[i] = s[i] + seconds / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]);
        }
        return r;
    }

    static double wrapped(double angle) {
        while (angle > std::numbers::pi) angle -= 2.0 * std::numbers::pi;
        while (angle < -std::numbers::pi) angle += 2.0 * std::numbers::pi;
        return angle;
    }
};

}  // namespace control
