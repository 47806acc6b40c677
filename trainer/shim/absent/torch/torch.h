// Found only where libtorch's own <torch/torch.h> is not: see .cargo/config.toml.
#error "grug-trainer needs libtorch, and the folder LIBTORCH has none. Run scripts/fetch-libtorch (--cuda with an NVIDIA GPU), or set LIBTORCH to an installed PyTorch 2.11 (site-packages/torch)."
