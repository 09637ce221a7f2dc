"""What stock verl 0.9.1 and vLLM lack to run without an accelerator.

Nothing in this package knows HDPO, and nothing in it is active unless ``VERL_PLATFORM=cpu``:

- :mod:`recipe.hdpo.cpu.platform`: a ``cpu`` platform for verl's platform registry;
- :mod:`recipe.hdpo.cpu.verl_patches`: the FSDP engine on ``cpu``, a plain gloo process group, and the like;
- :mod:`recipe.hdpo.cpu.vllm_patches`: linear layers whose weights can be loaded again (weight sync), and the like;
- :mod:`recipe.hdpo.cpu.checkpoint_engine`: weights through memory, for ``separate_async``, where a config names it.
"""
