"""One way of using grpo from another project: make that project in a scratch folder, build it, run it, compare."""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
COMPONENT_HEADERS = {"eigen": "grpo/adapt/eigen.hpp", "xtensor": "grpo/adapt/xtensor.hpp", "simd": "grpo/exec/simd.hpp",
                     "threads": "grpo/exec/threads.hpp", "torch": "grpo/adapt/torch.hpp",
                     "blas": "grpo/adapt/gemm/blas.hpp", "onednn": "grpo/adapt/gemm/onednn.hpp",
                     "cuda": "grpo/exec/cuda.cuh", "cublas": "grpo/adapt/gemm/cublas.hpp",
                     "nvrtc": "grpo/exec/nvrtc.hpp"}


class Trial:
    def __init__(self, args, scratch):
        self.args = args
        self.scratch = pathlib.Path(scratch)
        self.prefix = self.scratch / "prefix"

    def run(self, *command, may_fail=False):
        result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0 and not may_fail:
            sys.exit(f"failed: {' '.join(map(str, command))}\n{result.stdout}")
        return result

    def configure(self, source, build, *definitions, may_fail=False):
        return self.run(self.args.cmake, "-S", source, "-B", build, "-G", self.args.generator,
                        f"-DCMAKE_CXX_COMPILER={self.args.compiler}", *[f"-D{d}" for d in definitions], may_fail=may_fail)

    def install(self):
        build = self.scratch / "grpo"
        self.configure(self.args.project, build, f"CMAKE_INSTALL_PREFIX={self.prefix}", "GRPO_BUILD_TESTS=OFF",
                       "GRPO_BUILD_EXAMPLES=OFF", "GRPO_BUILD_BENCHMARKS=OFF", "CMAKE_INSTALL_LIBDIR=lib")
        self.run(self.args.cmake, "--build", build)
        self.run(self.args.cmake, "--install", build)

    def expect_version(self, binary):
        printed = self.run(binary).stdout.strip()
        if printed != f"grpo {self.args.version}":
            sys.exit(f"the consumer prints '{printed}', not 'grpo {self.args.version}'")

    def build_and_run(self, source, *definitions):
        build = self.scratch / "consumer"
        self.configure(HERE / source, build, *definitions)
        self.run(self.args.cmake, "--build", build)
        self.expect_version(build / "consumer")

    def use_package(self, source, *definitions):
        self.install()
        self.build_and_run(source, f"CMAKE_PREFIX_PATH={self.prefix}", f"GRPO_PREFIX={self.prefix}",
                           f"VERSION_WANTED={self.args.version.rsplit('.', 1)[0]}", *definitions)

    def be_refused(self, words, *definitions):
        self.install()
        result = self.configure(HERE / "package", self.scratch / "consumer", f"CMAKE_PREFIX_PATH={self.prefix}",
                                *definitions, may_fail=True)
        said = " ".join(result.stdout.split())
        if result.returncode == 0:
            sys.exit("the project configures, but should be refused")
        for word in words:
            if word not in said:
                sys.exit(f"the refusal does not say '{word}':\n{result.stdout}")

    # The ways, named as ctest names them.

    def plain_include(self):
        binary = self.scratch / "consumer"
        self.run(self.args.compiler, "-std=c++20", "-I", self.args.project / "include", HERE / "main.cpp", "-o", binary)
        self.expect_version(binary)

    def add_subdirectory(self):
        self.build_and_run("source_tree", f"GRPO_SOURCE={self.args.project}", "WAY=add_subdirectory")

    def add_subdirectory_component(self):
        self.build_and_run("source_tree", f"GRPO_SOURCE={self.args.project}", "WAY=add_subdirectory",
                           "COMPONENT=eigen", f"COMPONENT_HEADER={COMPONENT_HEADERS['eigen']}")

    def fetch_content(self):
        self.build_and_run("source_tree", f"GRPO_SOURCE={self.args.project}", "WAY=fetch_content")

    def find_package(self):
        self.use_package("package")

    def component(self, name):
        if name in ("cuda", "cublas"):
            return self.use_package("cuda", f"COMPONENT={name}", f"COMPONENT_HEADER={COMPONENT_HEADERS[name]}",
                                    f"CMAKE_CUDA_COMPILER={self.args.nvcc}")
        if name == "nvrtc":
            return self.nvrtc()
        self.use_package("package", f"COMPONENT={name}", f"COMPONENT_HEADER={COMPONENT_HEADERS[name]}")

    def nvrtc(self):
        self.use_package("nvrtc")
        # The program carries its headers: it compiles kernels where nothing of grpo is installed.
        os.rename(self.prefix, self.scratch / "gone")
        self.expect_version(self.scratch / "consumer" / "consumer")

    def wrong_version(self):
        self.be_refused(["grpo", '"99.0"', f"version: {self.args.version}"], "VERSION_WANTED=99.0")

    def unknown_component(self):
        self.be_refused(["grpo has no component 'teapot'", "eigen, xtensor, simd, threads, torch, blas, onednn, cuda, cublas and nvrtc"],
                        f"VERSION_WANTED={self.args.version}", "COMPONENT=teapot")

    def component_absent(self):
        self.be_refused(["grpo's component 'torch' needs the package Torch, which was not found", "libtorch-dev"],
                        f"VERSION_WANTED={self.args.version}", "COMPONENT=torch", "CMAKE_DISABLE_FIND_PACKAGE_Torch=ON")

    def no_leaks(self):
        self.use_package("leaks")
        include = self.args.project / "include"
        wanted = {p.relative_to(include) for p in include.rglob("*") if p.suffix in {".hpp", ".cuh"}}
        installed = {p.relative_to(self.prefix / "include") for p in (self.prefix / "include").rglob("*") if p.is_file()}
        if wanted != installed:
            sys.exit(f"headers of the tree and of the installation differ: {sorted(map(str, wanted ^ installed))}")
        for path in self.prefix.rglob("*.cmake"):
            text = path.read_text()
            for folder in (self.args.project, self.scratch):
                if str(folder) in text:
                    sys.exit(f"{path.name} names the folder it was built in")
        # A prefix that was moved after the installation still works.
        moved = self.scratch / "moved"
        os.rename(self.prefix, moved)
        self.configure(HERE / "leaks", self.scratch / "again", f"CMAKE_PREFIX_PATH={moved}", f"GRPO_PREFIX={moved}",
                       f"VERSION_WANTED={self.args.version}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way")
    parser.add_argument("--project", type=pathlib.Path, required=True)
    for option in ("--version", "--cmake", "--generator", "--compiler"):
        parser.add_argument(option, required=True)
    parser.add_argument("--nvcc", default="nvcc")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(args, pathlib.Path(scratch).resolve())
        if args.way.startswith("component_") and args.way != "component_absent":
            trial.component(args.way.removeprefix("component_"))
        else:
            getattr(trial, args.way)()
    print(f"fine: {args.way}")


main()
