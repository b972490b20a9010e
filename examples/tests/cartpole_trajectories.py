"""The environments of examples/cartpole against equations of motion that are derived and solved here another way:
Newton's and Lagrange's equations as linear systems in the accelerations. With an argument --gymnasium, the installed
Gymnasium is compared as well.
"""
import math
import random
import struct
import subprocess
import sys


def single(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def solved(a, b, c, d, e, f):
    """x and y of a x + b y = e, c x + d y = f."""
    determinant = a * d - b * c
    return (e * d - b * f) / determinant, (a * f - e * c) / determinant


def cartpole(state, action):
    """A uniform pole of 1 m and 0.1 kg on a cart of 1 kg, pushed with 10 N for 0.02 s; an explicit Euler step."""
    x, v, theta, omega = state
    m, half = 0.1, 0.5
    force = 10.0 if action == 1 else -10.0
    # (M + m) x'' + m l cos θ'' = F + m l ω² sin;  m l cos x'' + 4/3 m l² θ'' = m g l sin
    xx, tt = solved(1.1, m * half * math.cos(theta), m * half * math.cos(theta), 4 / 3 * m * half * half,
                    force + m * half * omega ** 2 * math.sin(theta), m * 9.8 * half * math.sin(theta))
    after = [x + 0.02 * v, v + 0.02 * xx, theta + 0.02 * omega, omega + 0.02 * tt]
    fallen = abs(after[0]) > 2.4 or abs(after[2]) > math.radians(12)
    return after, 1.0, fallen, [single(value) for value in after]


def acrobot(state, action):
    """Two links of 1 m and 1 kg, centres of mass in their middles, moments of inertia 1 kg m²; Runge-Kutta, 0.2 s."""
    def rates(s):
        a, b, p, q = s
        cosine, sine = math.cos(b), math.sin(b)
        shared = 0.5 * cosine
        # M (a'', b'') = (0, torque) - Coriolis - gravity, angles from hanging down
        gravity_b = 0.5 * 9.8 * math.sin(a + b)
        gravity_a = 1.5 * 9.8 * math.sin(a) + gravity_b
        aa, bb = solved(1.25 + 1.25 + 1 + 2 * shared, 1.25 + shared, 1.25 + shared, 1.25,
                        0.5 * sine * (q * q + 2 * p * q) - gravity_a, (action - 1) - 0.5 * sine * p * p - gravity_b)
        return [p, q, aa, bb]

    def ahead(s, k, h):
        return [x + h * r for x, r in zip(s, k)]

    k1 = rates(state)
    k2 = rates(ahead(state, k1, 0.1))
    k3 = rates(ahead(state, k2, 0.1))
    k4 = rates(ahead(state, k3, 0.2))
    a, b, p, q = [x + 0.2 * (r1 + 2 * r2 + 2 * r3 + r4) / 6 for x, r1, r2, r3, r4 in zip(state, k1, k2, k3, k4)]
    turn = 2 * math.pi
    a, b = (angle - turn * math.floor((angle + math.pi) / turn) for angle in (a, b))
    p, q = max(-4 * math.pi, min(4 * math.pi, p)), max(-9 * math.pi, min(9 * math.pi, q))
    high = -math.cos(a) - math.cos(a + b) > 1
    seen = [single(x) for x in (math.cos(a), math.sin(a), math.cos(b), math.sin(b), p, q)]
    return [a, b, p, q], 0.0 if high else -1.0, high, seen


def cases(seed):
    """States near the start, all over the space, and along trajectories that the reference computes."""
    draw = random.Random(seed)
    for name, step, actions, spans in (("cartpole", cartpole, 2, (2.4, 3, 0.21, 3)),
                                       ("acrobot", acrobot, 3, (math.pi, math.pi, 4 * math.pi, 9 * math.pi))):
        for _ in range(2000):
            yield name, step, [draw.uniform(-s, s) for s in spans], draw.randrange(actions)
        for _ in range(20):
            state = [draw.uniform(-0.05, 0.05) for _ in range(4)]
            for _ in range(100):
                action = draw.randrange(actions)
                yield name, step, state, action
                state = step(state, action)[0]


def stepped(program, asked):
    lines = "".join(f"{name} {' '.join(map(repr, state))} {action}\n" for name, _, state, action in asked)
    out = subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(out) == len(asked), (len(out), len(asked))
    return [[float(cell) for cell in line.split()] for line in out]


def gymnasium_step(name, state, action):
    import gymnasium
    import numpy
    env = gymnasium_step.made.setdefault(name, gymnasium.make(
        "CartPole-v1" if name == "cartpole" else "Acrobot-v1").unwrapped)
    env.reset()
    env.state = tuple(state) if name == "cartpole" else numpy.array(state)
    seen, reward, ended, _, _ = env.step(action)
    return [float(x) for x in env.state], float(reward), ended, [float(x) for x in seen]


gymnasium_step.made = {}


def main():
    asked = list(cases(7))
    worst, ends = {}, {}
    with_gymnasium = "--gymnasium" in sys.argv[2:]
    for (name, step, state, action), got in zip(asked, stepped(sys.argv[1], asked)):
        for source, wanted in [("equations", step(state, action))] + \
                ([("Gymnasium", gymnasium_step(name, state, action))] if with_gymnasium else []):
            after, reward, ended, seen = wanted
            error = max(abs(a - b) / max(1, abs(b)) for a, b in zip(got[:4], after))
            worst[name, source] = max(worst.get((name, source), 0), error)
            ends[name] = ends.get(name, 0) + ended
            assert error < 1e-12, (source, name, state, action, got, after)
            assert got[4] == reward and bool(got[5]) == ended, (source, name, state, action, got, wanted)
            assert len(got) == 6 + len(seen), (name, got)
            assert all(abs(a - b) <= 2e-7 * max(1, abs(b)) for a, b in zip(got[6:], seen)), (source, name, got, seen)
    assert all(count > 50 for count in ends.values()), ends
    for (name, source), error in worst.items():
        print(f"{name} against {source}: at most {error:.1e} apart, relative to max(1, |x|)")


main()
