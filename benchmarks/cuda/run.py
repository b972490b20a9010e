#!/usr/bin/env python3
"""Builds, checks and times the library on an NVIDIA GPU, in one call, beside PyTorch (eager, compiled) and Liger-Kernel.

  python3 benchmarks/cuda/run.py                        everything
  python3 benchmarks/cuda/run.py --cases K1 --json k1.json

Floors are measured in the same run: bytes that must move over the bandwidth of a copy, products over the rate of a large
product. Times are medians of CUDA events; the variants of a row take turns.
"""
import argparse
import ctypes
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Callable, Optional

import torch

import baselines

HERE = pathlib.Path(__file__).resolve().parent
GSPO_LOW, GSPO_HIGH = 3e-4, 4e-4


def build() -> pathlib.Path:
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    library = pathlib.Path(tempfile.mkdtemp()) / "libgrpo_benchmark.so"
    command = [nvcc, "-std=c++20", "-O3", "-arch=native", "-shared", "-Xcompiler", "-fPIC", f"-I{HERE.parent.parent / 'include'}",
               str(HERE / "library.cu"), "-lcublas", "-o", str(library)]
    subprocess.run(command, check=True)
    return library


class Library:
    """The C interface of library.cu on tensors."""

    def __init__(self, path: pathlib.Path):
        self.c = ctypes.CDLL(str(path))
        self.c.grpo_last_error.restype = ctypes.c_char_p
        self.c.grpo_open.restype = ctypes.c_void_p
        for name in ("grpo_workspace_bytes", "grpo_result_bytes", "grpo_hidden_workspace_bytes"):
            getattr(self.c, name).restype = ctypes.c_longlong
        self.workspace: Optional[torch.Tensor] = None

    def has(self, name: str) -> bool:
        return hasattr(self.c, name)

    def room(self, count: int) -> torch.Tensor:
        if self.workspace is None or self.workspace.numel() < count:
            self.workspace = None
            self.workspace = torch.empty(count, dtype=torch.uint8, device="cuda")
        return self.workspace

    def new_loss(self) -> torch.Tensor:
        """Room for a loss_result, which begins with the sum."""
        return torch.zeros(self.c.grpo_result_bytes() // 8, dtype=torch.float64, device="cuda")

    def prepare(self, name: str, bytes_needed: int, rows: int, *arguments) -> Callable[[], None]:
        """A call with everything converted before it is timed, and an executor for each stream that it is called on."""
        workspace = self.room(bytes_needed)[:bytes_needed]
        places: dict[int, ctypes.c_void_p] = {}
        converted = [None]
        for a in arguments:
            if a is None or isinstance(a, torch.Tensor):
                converted.append(ctypes.c_void_p(None if a is None else a.data_ptr()))
            elif isinstance(a, float):
                converted.append(ctypes.c_double(a))
            else:
                converted.append(ctypes.c_longlong(a))
        function = getattr(self.c, name)

        def call() -> None:
            stream = torch.cuda.current_stream().cuda_stream
            if stream not in places:
                place = self.c.grpo_open(ctypes.c_void_p(stream), ctypes.c_void_p(workspace.data_ptr()),
                                         ctypes.c_longlong(workspace.numel()), ctypes.c_longlong(rows))
                if place is None:
                    raise RuntimeError(self.c.grpo_last_error().decode())
                places[stream] = ctypes.c_void_p(place)
            converted[0] = places[stream]
            if function(*converted) != 0:
                raise RuntimeError(self.c.grpo_last_error().decode())

        call.keep = (arguments, workspace)  # tensors live as long as their addresses are used
        return call

    def bytes_for(self, tokens: int, vocabulary: int) -> int:
        return self.c.grpo_workspace_bytes(ctypes.c_longlong(tokens), ctypes.c_longlong(vocabulary))

    def token_logp(self, b: baselines.Batch, logp: torch.Tensor):
        n, v = b.logits.shape
        return self.prepare("grpo_token_logp", self.bytes_for(n, v), 1, b.logits, b.target, n, v, logp, None)

    def evaluate_logits(self, b: baselines.Batch, gradient: torch.Tensor, loss: torch.Tensor, sequence_level: bool):
        (sequences, length), v = b.shape, b.logits.shape[1]
        return self.prepare("grpo_evaluate_logits", self.bytes_for(sequences * length, v), sequences, int(sequence_level), b.logits,
                            b.target, b.mask, b.logp_old, b.logp_ref, b.advantage, sequences, length, v, gradient, loss)

    def token_loss(self, logp, b, d_logp, loss):
        sequences, length = b.shape
        return self.prepare("grpo_token_loss", self.bytes_for(sequences * length, 1), sequences, logp, b.logp_old, b.logp_ref,
                            b.mask, b.advantage, sequences, length, d_logp, loss)

    def correction_weights(self, logp_old, logp_rollout, mask, weight):
        sequences, length = mask.shape
        return self.prepare("grpo_correction_weights", self.bytes_for(sequences, 1), sequences, logp_old, logp_rollout, mask,
                            sequences, length, weight)

    def select_top_entropy(self, entropy, mask, share, keep):
        sequences, length = mask.shape
        return self.prepare("grpo_select_top_entropy", self.bytes_for(sequences, 1), sequences, entropy, mask, sequences, length,
                            share, keep)

    def gae(self, reward, value, gamma, lam, advantage, returns):
        sequences, length = reward.shape
        return self.prepare("grpo_gae", self.bytes_for(sequences, 1), sequences, reward, value, sequences, length, gamma, lam,
                            advantage, returns)

    def group_normalise(self, reward, advantage):
        groups, size = reward.shape
        return self.prepare("grpo_group_normalise", self.bytes_for(1024, 1), 1, reward, groups, size, advantage)

    def evaluate_hidden(self, hidden, weight, b, chunk, d_hidden, d_weight, loss, rounded: bool):
        (n, h), v = hidden.shape, weight.shape[0]
        sequences, length = b.shape
        count = self.c.grpo_hidden_workspace_bytes(int(rounded), *[ctypes.c_longlong(x) for x in (n, h, v, chunk)])
        return self.prepare("grpo_evaluate_hidden", count, n, int(rounded), hidden, weight, b.target, b.mask, b.logp_old, b.logp_ref,
                            b.advantage, sequences, length, h, v, d_hidden, d_weight, loss)


def captured(call: Callable[[], None], calls: int) -> Callable[[], None]:
    """So many calls as one graph: what the processor takes to put them into the queue is then not measured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        for _ in range(calls):
            call()
    return graph.replay


def median_times(variants: dict[str, Callable[[], None]], rounds: int = 9, calls: int = 1) -> dict[str, float]:
    """Milliseconds a call; the variants take turns, many short calls as a graph where that can be captured.
    A variant that fails is left out, with the reason printed."""
    times: dict[str, list[float]] = {}
    alive = dict(variants)
    launches = {name: calls for name in alive}
    if calls > 1:
        for name in list(alive):
            try:
                alive[name], launches[name] = captured(alive[name], calls), 1
            except Exception as e:
                print(f"  {name} is timed call by call, and may wait for the processor: {str(e).splitlines()[0][:100]}")
    for round_number in range(rounds + 2):
        for name in list(alive):
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            try:
                torch.cuda._sleep(1_000_000)  # the GPU is busy while the calls are put into its queue
                start.record()
                for _ in range(launches[name]):
                    alive[name]()
                stop.record()
                stop.synchronize()
            except Exception as e:  # of a foreign implementation, mostly memory
                if name == "grpo":
                    raise
                print(f"  {name} failed: {str(e).splitlines()[0][:140]}")
                del alive[name]
                continue
            if round_number >= 2:
                times.setdefault(name, []).append(start.elapsed_time(stop) / calls)
    return {name: statistics.median(t) for name, t in times.items() if name in alive}


@dataclass
class Row:
    case: str
    size: str
    floor_ms: float
    times: dict[str, float] = field(default_factory=dict)
    memory_gib: dict[str, float] = field(default_factory=dict)

    def text(self) -> str:
        def cell(name: str) -> str:
            return f"{self.times[name]:9.4g}" if name in self.times else "        –"

        ours = self.times.get("grpo", float("nan"))
        others = [t for name, t in self.times.items() if name != "grpo"]
        ratio = f"{min(others) / ours:6.2f}" if others else "     –"
        peak = "  ".join(f"{k} {v:.1f}" for k, v in self.memory_gib.items())
        return (f"{self.case:22} {self.size:18} {self.floor_ms:9.4g} {cell('grpo')} {100 * self.floor_ms / ours:6.1f} "
                f"{cell('eager')} {cell('compile')} {cell('liger')} {ratio}  {peak}")


class Bench:
    def __init__(self, library: Library, wanted: str, quick: bool):
        self.ours, self.wanted, self.quick = library, wanted, quick
        self.rows: list[Row] = []
        self.bandwidth, self.rate = self.measure_limits()
        print(f"copy {self.bandwidth / 1e12:.3f} TB/s, bf16 product {self.rate / 1e12:.0f} TFLOP/s")
        print(f"{'case':22} {'size':18} {'floor ms':>9} {'grpo':>9} {'% floor':>7} {'eager':>8} {'compile':>9} {'liger':>9} {'best ×':>6}")

    @staticmethod
    def measure_limits() -> tuple[float, float]:
        a = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
        b = torch.empty_like(a)
        copy = median_times({"copy": lambda: b.copy_(a)})["copy"]
        del a, b
        x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        y = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        out = torch.empty_like(x)
        product = median_times({"product": lambda: torch.matmul(x, y, out=out)})["product"]
        return 2 * (1 << 31) / copy * 1e3, 2 * 8192**3 / product * 1e3

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row.text(), flush=True)

    def bytes_floor(self, count: float) -> float:
        return count / self.bandwidth * 1e3

    def wants(self, case: str) -> bool:
        return self.wanted in case

    # ---- rows

    def logits_rows(self, n: int, v: int, compare: bool, compiled: bool) -> None:
        if not (self.wants("K1") or self.wants("K2")):
            return
        b = baselines.make_batch(8, n // 8, v, "cuda")
        size = f"{n} x {v}"
        once = self.bytes_floor(2.0 * n * v)
        loss = self.ours.new_loss()
        if self.wants("K1"):
            logp = torch.empty(n, device="cuda")
            variants = {"grpo": self.ours.token_logp(b, logp)}
            if compare:
                variants["eager"] = lambda: baselines.token_logp(b.logits, b.target.flatten())
            if compiled:
                compiled_logp = torch.compile(baselines.token_logp_by_lse)
                variants["compile"] = lambda: compiled_logp(b.logits, b.target.flatten())
            with torch.no_grad():
                self.add(Row("K1 log-probabilities", size, once, median_times(variants)))
        if self.wants("K2"):
            variants = {}
            if compare:
                variants["eager"] = self.autograd(b, baselines.token_logp)
            if compiled:
                variants["compile"] = self.autograd(b, baselines.token_logp_by_lse, torch.compile)
            times = median_times(variants, rounds=5)
            liger = baselines.liger_loss(b) if compare else None
            torch.cuda.empty_cache()
            ours = {"grpo": self.ours.evaluate_logits(b, b.logits, loss, False)}
            if liger is not None:
                ours["liger"] = liger
            times.update(median_times(ours))
            del liger, ours
            self.add(Row("K2 clip + KL in place", size, 2 * once, times))
            sequence = median_times({"grpo": self.ours.evaluate_logits(b, b.logits, loss, True)})
            self.add(Row("K2 sequence-level", size, 3 * once, sequence))

    @staticmethod
    def autograd(b: baselines.Batch, logp_of, wrap=lambda f: f) -> Callable[[], None]:
        z = b.logits.detach().requires_grad_()
        loss_of = wrap(lambda logits: baselines.loss_of_logits(logits, b, logp_of=logp_of))

        def run() -> None:
            z.grad = None
            loss_of(z).backward()

        return run

    def hidden_row(self, n: int, h: int, v: int, compare: bool, chunk: int = 4096) -> None:
        if not self.wants("K3") or not self.ours.has("grpo_evaluate_hidden"):
            return
        b = baselines.make_batch(8, n // 8, v, "cuda")
        b.logits = torch.empty(0, device="cuda")
        hidden = torch.randn(n, h, device="cuda", dtype=torch.bfloat16)
        weight = torch.randn(v, h, device="cuda", dtype=torch.bfloat16) * h**-0.5
        times, memory = {}, {}

        def time_one(name: str, make: Callable[[], Optional[Callable[[], None]]]) -> None:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run = make()
            if run is None:
                return
            times.update(median_times({name: run}, rounds=3))
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**30

        def ours(rounded: bool, at_once: int) -> Callable[[], None]:
            self.ours.workspace = None
            d_hidden = torch.empty(n, h, device="cuda")
            d_weight = torch.empty(v, h, device="cuda")
            return self.ours.evaluate_hidden(hidden, weight, b, at_once, d_hidden, d_weight, self.ours.new_loss(), rounded)

        def eager() -> Callable[[], None]:
            x, w = hidden.detach().requires_grad_(), weight.detach().requires_grad_()

            def run() -> None:
                x.grad = w.grad = None
                baselines.loss_of_logits(x @ w.T, b).backward()

            return run

        size, floor = f"{n} x {h} x {v}", 6.0 * n * h * v / self.rate * 1e3
        time_one("grpo", lambda: ours(True, chunk))  # logits of bfloat16, as in the others
        if compare:
            self.ours.workspace = None
            time_one("eager", eager)
            time_one("liger", lambda: baselines.liger_fused_linear(hidden, weight, b, 1))
        self.add(Row("K3 hidden to loss", size, floor, dict(times), dict(memory)))
        for case, rounded, at_once in [("K3, logits in float", False, chunk), ("K3, all tokens at once", True, n)]:
            times.clear(), memory.clear()
            time_one("grpo", lambda: ours(rounded, at_once))
            self.ours.workspace = None
            self.add(Row(case, size, floor, dict(times), dict(memory)))

    def token_row(self) -> None:
        if not self.wants("tokens"):
            return
        b = baselines.make_batch(32, 32768, 2, "cuda")
        logp = (b.logp_old + 0.1).detach()
        d_logp, loss = torch.empty_like(logp), self.ours.new_loss()
        x = logp.clone().requires_grad_()

        def autograd(loss_of) -> Callable[[], None]:
            def run() -> None:
                x.grad = None
                loss_of(x, b.logp_old, b.logp_ref, b.mask, b.advantage).backward()

            return run

        variants = {"grpo": self.ours.token_loss(logp, b, d_logp, loss), "eager": autograd(baselines.clipped_loss)}
        if not self.quick:
            variants["compile"] = autograd(torch.compile(baselines.clipped_loss))
        self.add(Row("tokens: loss, gradient", "32 x 32768", self.bytes_floor(17.0 * logp.numel()), median_times(variants, calls=20)))

    def correction_row(self) -> None:
        if not self.wants("corrections"):
            return
        b = baselines.make_batch(32, 32768, 2, "cuda")
        out = torch.empty_like(b.logp_old)
        variants = {"grpo": self.ours.correction_weights(b.logp_old, b.logp_ref, b.mask, out),
                    "eager": lambda: baselines.truncated_weights(b.logp_old, b.logp_ref, b.mask)}
        if not self.quick:
            compiled = torch.compile(baselines.truncated_weights)
            variants["compile"] = lambda: compiled(b.logp_old, b.logp_ref, b.mask)
        self.add(Row("corrections: weights", "32 x 32768", self.bytes_floor(13.0 * out.numel()), median_times(variants, calls=20)))

    def selection_row(self) -> None:
        if not self.wants("selection"):
            return
        entropy = torch.rand(32, 32768, device="cuda")
        mask = torch.ones_like(entropy, dtype=torch.uint8)
        keep = torch.empty_like(mask)
        variants = {"grpo": self.ours.select_top_entropy(entropy, mask, 0.2, keep),
                    "eager": lambda: baselines.top_entropy(entropy, mask, 0.2)}
        self.add(Row("selection: top entropy", "32 x 32768", self.bytes_floor(6.0 * keep.numel()), median_times(variants, calls=10)))

    def gae_row(self) -> None:
        if not self.wants("GAE"):
            return
        reward, value = torch.randn(2, 1024, 32768, device="cuda")
        out = torch.empty(2, 1024, 32768, device="cuda")
        call = self.ours.gae(reward, value, 0.99, 0.95, out[0], out[1])
        self.add(Row("GAE", "1024 x 32768", self.bytes_floor(16.0 * reward.numel()), median_times({"grpo": call})))

    def group_row(self) -> None:
        if not self.wants("groups"):
            return
        reward = torch.randn(1 << 20, 8, device="cuda")
        out = torch.empty_like(reward)
        variants = {"grpo": self.ours.group_normalise(reward, out), "eager": lambda: baselines.group_normalised(reward)}
        if not self.quick:
            compiled = torch.compile(baselines.group_normalised)
            variants["compile"] = lambda: compiled(reward)
        self.add(Row("groups: statistics", "1048576 x 8", self.bytes_floor(8.0 * reward.numel()), median_times(variants, calls=10)))


def check(library: Library) -> None:
    """Everything that will be timed, against float64, on smaller shapes; twice with the same bits."""
    failures = []

    def expect(name: str, got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
        error = baselines.relative_error(got, expected)
        if not error <= tolerance:
            failures.append(f"{name}: relative error {error:.3g} over {tolerance:.3g}")

    def twice(name: str, call: Callable[[], None], out: torch.Tensor) -> None:
        call()
        first = out.clone()
        call()
        if not torch.equal(first, out):
            failures.append(f"{name}: two runs differ")

    loss = library.new_loss()
    for sequences, length, v in [(4, 16, 5003), (2, 8, 128256), (2, 300, 151936)]:
        b = baselines.make_batch(sequences, length, v, "cuda", active=0.9)
        name = f"{sequences * length} x {v}"
        z = b.logits.double().requires_grad_()
        logp = torch.empty(sequences * length, device="cuda")
        twice(f"K1 {name}", library.token_logp(b, logp), logp)
        expect(f"K1 {name}", logp, baselines.token_logp(z.detach(), b.target.flatten()), 1e-6)
        gspo = lambda *x: baselines.sequence_loss(*x, GSPO_LOW, GSPO_HIGH)
        for level, token_loss in [(False, baselines.clipped_loss), (True, gspo)]:
            z.grad = None
            expected = baselines.loss_of_logits(z, b, token_loss)
            expected.backward()
            gradient = torch.empty_like(b.logits)
            twice(f"K2 {name} {level}", library.evaluate_logits(b, gradient, loss, level), gradient)
            expect(f"K2 loss {name} {level}", loss[0] / b.mask.numel(), expected.detach(), 1e-5)
            expect(f"K2 gradient {name} {level}", gradient, z.grad, 1 / 256)
            place = baselines.Batch(b.logits.clone(), b.target, b.mask, b.logp_old, b.logp_ref, b.advantage)
            library.evaluate_logits(place, place.logits, loss, level)()
            if not torch.equal(place.logits, gradient):
                failures.append(f"K2 {name} {level}: in place differs")
    check_tokens(library, expect, twice)
    if library.has("grpo_evaluate_hidden"):
        check_hidden(library, expect)
    if failures:
        sys.exit("\n".join(["wrong:"] + failures))
    print("checks: fine")


def check_tokens(library: Library, expect, twice) -> None:
    b = baselines.make_batch(8, 1000, 2, "cuda", active=0.9)
    logp = (b.logp_old + 0.3 * torch.randn_like(b.logp_old)).requires_grad_()
    d_logp, loss = torch.empty_like(logp), library.new_loss()
    twice("tokens", library.token_loss(logp.detach(), b, d_logp, loss), d_logp)
    wide = logp.detach().double().requires_grad_()
    expected = baselines.clipped_loss(wide, b.logp_old.double(), b.logp_ref.double(), b.mask, b.advantage.double())
    expected.backward()
    expect("token loss", loss[0] / logp.numel(), expected.detach(), 1e-6)
    expect("token gradient", d_logp, wide.grad, 1e-6)
    weight = torch.empty_like(b.logp_old)
    twice("corrections", library.correction_weights(b.logp_old, b.logp_ref, b.mask, weight), weight)
    expect("corrections", weight, baselines.truncated_weights(b.logp_old.double(), b.logp_ref.double(), b.mask)[0], 1e-6)
    entropy = torch.rand(b.shape, device="cuda")
    keep = torch.empty_like(b.mask)
    twice("selection", library.select_top_entropy(entropy, b.mask, 0.2, keep), keep)
    expect("selection", keep.double(), baselines.top_entropy(entropy.double(), b.mask, 0.2).double(), 1e-6)
    reward, value = torch.randn(2, 16, 700, device="cuda")
    advantage, returns = torch.empty(2, 16, 700, device="cuda")
    twice("GAE", library.gae(reward, value, 0.99, 0.95, advantage, returns), advantage)
    expected = baselines.gae(reward.double(), value.double(), 0.99, 0.95)
    expect("GAE", advantage, expected, 1e-5)
    expect("GAE's returns", returns, expected + value, 1e-5)
    reward = torch.randn(3000, 8, device="cuda")
    out = torch.empty_like(reward)
    twice("groups", library.group_normalise(reward, out), out)
    expect("groups", out, baselines.group_normalised(reward.double()), 1e-6)


def check_hidden(library: Library, expect) -> None:
    n, h, v = 96, 64, 5003
    b = baselines.make_batch(4, n // 4, v, "cuda", active=0.9)
    hidden = torch.randn(n, h, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(v, h, device="cuda", dtype=torch.bfloat16) * h**-0.5
    d_hidden, d_weight = torch.empty(n, h, device="cuda"), torch.empty(v, h, device="cuda")
    loss = library.new_loss()
    x, w = hidden.double().requires_grad_(), weight.double().requires_grad_()
    expected = baselines.loss_of_logits(x @ w.T, b)
    expected.backward()
    for rounded in (False, True):
        library.evaluate_hidden(hidden, weight, b, 40, d_hidden, d_weight, loss, rounded)()
        name = "K3, logits of bfloat16," if rounded else "K3"
        expect(f"{name} loss", loss[0] / n, expected.detach(), 2e-2)
        expect(f"{name} d_hidden", d_hidden, x.grad, 2e-2)
        expect(f"{name} d_weight", d_weight, w.grad, 2e-2)


def driver() -> str:
    done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.split("\n")[0] if done.returncode == 0 else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", dest="built", type=pathlib.Path, help="built before; otherwise it is built now")
    parser.add_argument("--cases", default="", help="only rows whose name contains this: K1, K2, K3, tokens, corrections, selection, GAE, groups")
    parser.add_argument("--quick", action="store_true", help="without torch.compile")
    parser.add_argument("--json", type=pathlib.Path, help="write the record here")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("run.py: no NVIDIA GPU was found")
    started = time.time()
    library = Library(args.built or build())
    check(library)
    bench = Bench(library, args.cases, args.quick)
    bench.token_row(), bench.correction_row(), bench.selection_row(), bench.gae_row(), bench.group_row()
    for v in (128256, 151936):
        first = v == 128256
        bench.logits_rows(8192, v, compare=True, compiled=first and not args.quick)
        torch.cuda.empty_cache()
        bench.logits_rows(32768, v, compare=False, compiled=False)
        torch.cuda.empty_cache()
        bench.hidden_row(8192, 4096, v, compare=first)
        torch.cuda.empty_cache()
    record = {"device": torch.cuda.get_device_name(), "driver": driver(), "torch": torch.__version__, "cuda": torch.version.cuda,
              "copy_bytes_per_s": bench.bandwidth, "product_flops_per_s": bench.rate,
              "rows": [vars(row) for row in bench.rows], "seconds": time.time() - started}
    print(f"{record['device']}, PyTorch {record['torch']}, {record['seconds']:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
